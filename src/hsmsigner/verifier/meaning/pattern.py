"""Which keys a policy's pattern covers: `*` is any run of characters within a segment, `**` any number of segments."""

from __future__ import annotations

from collections.abc import Callable, Sequence


def covers(pattern: str, name: str) -> bool:
    """Whether the pattern covers the whole name, segment by segment."""
    return _fits(pattern.split("/"), name.split("/"), "**", _segment_fits)


def _segment_fits(pattern: str, segment: str) -> bool:
    return _fits(pattern, segment, "*", str.__eq__)


def _fits(pattern: Sequence[str], items: Sequence[str], star: str, is_one: Callable[[str, str], bool]) -> bool:
    """Glob matching that goes back to the last star only: what an earlier one would take, the last one can take too."""
    at = place = 0
    last_star, taken = -1, 0
    while place < len(items):
        if at < len(pattern) and pattern[at] == star:
            last_star, taken = at, place
            at += 1
        elif at < len(pattern) and is_one(pattern[at], items[place]):
            at, place = at + 1, place + 1
        elif last_star >= 0:
            taken += 1
            at, place = last_star + 1, taken
        else:
            return False
    return all(part == star for part in pattern[at:])
