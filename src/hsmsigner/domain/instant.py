"""Points in time as whole microseconds since 1970-01-01T00:00:00Z: exact, comparable, cheap."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import NewType

Instant = NewType("Instant", int)

MICROSECONDS_PER_SECOND = 1_000_000
_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - UTC, like every Instant; isoformat then adds no offset
_DURATION = re.compile(r"([1-9][0-9]{0,8})(s|m|h|d)", re.ASCII)
_UNIT_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def not_before(now: Instant, earliest: Instant) -> Instant:
    """The clock's `now`, but never before the newest record: a clock that is set back holds time still."""
    return Instant(max(now, earliest))


def format_instant(instant: Instant) -> str:
    """RFC 3339 in UTC with six decimals, as in 2026-11-20T10:42:00.000000Z."""
    return (_EPOCH + timedelta(microseconds=instant)).isoformat(timespec="microseconds") + "Z"


def parse_duration_us(text: str) -> int:
    """Read `90s`, `5m`, `12h` or `7d` into microseconds.

    Raises:
        ValueError: anything else, zero included.
    """
    match = _DURATION.fullmatch(text)
    if match is None:
        raise ValueError("must be a whole number with s, m, h or d, as in 1s, 15m, 12h, 1d")
    return int(match[1]) * _UNIT_SECONDS[match[2]] * MICROSECONDS_PER_SECOND
