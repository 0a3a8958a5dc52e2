"""The state folder, the room on its disk, and what the clock says against the newest record."""

from __future__ import annotations

import json
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

from hsmsigner.config import Settings
from hsmsigner.doctor.finding import Finding, fault, fine, warning
from hsmsigner.doctor.pairs import check_pairs

_BYTES_NEEDED = 64 * 2**20
_BYTES_WANTED = 2**30
# Records are written ahead of nobody's clock; less than this is rounding between two machines.
_CLOCK_TOLERANCE = timedelta(seconds=1)


def check_store(settings: Settings, now: datetime) -> Iterator[Finding]:
    """Check that the store can be written, and that `now` is not before what it already holds."""
    writable = _writable(settings.state_dir)
    yield writable
    try:
        yield room_for_records(settings.state_dir, shutil.disk_usage(settings.state_dir).free)
    except OSError as error:
        yield fault(
            "disk", f"{settings.state_dir} cannot be looked at: {error.strerror}", "check that the folder is there"
        )
    database = settings.store_file
    if not database.exists():
        yield fine("store", f"{database} does not exist yet; the first start makes it")
        return
    yield _newest_record(database, now)
    yield from check_pairs(database)


def _writable(folder: Path) -> Finding:
    try:
        # Really writes: mode bits say nothing of read-only mounts, quotas, or root.
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"\0" * 4096)
            file.flush()
    except OSError as error:
        return fault(
            "store",
            f"{folder} cannot be written: {error.strerror}",
            "give the service's user the folder, remount it writable, or make room; signing stops until then",
        )
    return fine("store", f"{folder} can be written")


def room_for_records(folder: Path, free: int) -> Finding:
    """Judge the free bytes of the store's disk."""
    text = f"{free / 2**20:,.0f} MiB are free for {folder}"
    if free < _BYTES_NEEDED:
        return fault("disk", f"is nearly full: {text}", "make room: without a record there is no signature")
    if free < _BYTES_WANTED:
        return warning("disk", f"is getting full: {text}", "make room soon: a million signatures take about a GiB")
    return fine("disk", text)


def _newest_record(database: Path, now: datetime) -> Finding:
    try:
        # mode=ro: a doctor must not make or change a store.
        connection = sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True, timeout=5)
        try:
            row = connection.execute("SELECT record FROM audit_records ORDER BY sequence DESC LIMIT 1").fetchone()
        finally:
            connection.close()
    except sqlite3.Error as error:
        return fault(
            "store",
            f"{database} cannot be read as a store: {error}",
            "restore it from a backup, or move it away to begin a new log (the old one then proves nothing new)",
        )
    if row is None:
        return fine("clock", "the log is empty; nothing to compare the clock with")
    try:
        newest = datetime.fromisoformat(json.loads(row[0])["time"])
        behind = newest - now
    except (ValueError, TypeError, KeyError) as error:
        return fault(
            "store",
            f"the newest record of {database} cannot be read ({type(error).__name__})",
            "run `hsmsigner audit verify`, and restore the store from a backup",
        )
    if behind > _CLOCK_TOLERANCE:
        return fault(
            "clock",
            f"this machine's clock is {_spoken(behind)} behind the newest record ({newest:%Y-%m-%d %H:%M:%S} UTC)",
            "set the clock (timedatectl status; chronyc makestep): quotas count wrong while it is behind",
        )
    return fine("clock", f"is after the newest record ({newest:%Y-%m-%d %H:%M:%S} UTC)")


def _spoken(span: timedelta) -> str:
    seconds = int(span.total_seconds())
    if seconds < 120:  # noqa: PLR2004 - up to two minutes
        return f"{seconds} seconds"
    if seconds < 2 * 86_400:
        return f"{seconds // 60} minutes"
    return f"{seconds // 86_400} days"
