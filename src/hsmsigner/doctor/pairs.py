"""Key pairs that the token was found to lack when the appliance last compared it with the store."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

from hsmsigner.doctor.finding import Finding, fault, fine, warning

_COLUMNS = frozenset({"missing_time", "state", "is_destroying"})
_MISSING = (
    "SELECT key_id, number, state, missing_time FROM key_versions"
    " WHERE missing_time IS NOT NULL AND state <> 'DESTROYED' AND NOT is_destroying ORDER BY key_id, number"
)
# Those that nobody signs with any more: their public keys verify on.
_AT_REST = frozenset({"DEACTIVATED", "COMPROMISED", "DESTROY_SCHEDULED"})
_MOST_SHOWN = 5


def check_pairs(database: Path) -> Iterator[Finding]:
    """Name the versions whose pair is missing."""
    try:
        with closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True, timeout=5)) as connection:
            columns = {row[1] for row in connection.execute("PRAGMA table_info(key_versions)")}
            if not columns >= _COLUMNS:
                # Of an older release: the next start brings it to today's form, and compares.
                return
            missing = connection.execute(_MISSING).fetchall()
    except sqlite3.Error as error:
        yield warning("pairs", f"cannot be looked up in {database}: {error}", "see what is said of the store")
        return
    if not missing:
        yield fine("pairs", "the token had every key pair when the appliance last compared")
        return
    shown = [f"keys/{key}/versions/{number} ({state}, since {_time(time)})" for key, number, state, time in missing]
    more = f" and {len(shown) - _MOST_SHOWN} more" if len(shown) > _MOST_SHOWN else ""
    message = f"the token lacks {', '.join(shown[:_MOST_SHOWN])}{more}"
    way_out = (
        "is it the right token, from its newest backup? Restore the pair and restart the appliance, which compares"
        " again; if it is lost for good, `hsmsigner rotate` gives the key a new version"
    )
    say = warning if all(state in _AT_REST for _, _, state, _ in missing) else fault
    yield say("pairs", message, way_out)


def _time(microseconds: int) -> str:
    return f"{datetime.fromtimestamp(microseconds / 1_000_000, UTC):%Y-%m-%d %H:%M} UTC"
