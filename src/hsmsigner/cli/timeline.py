"""The versions of a key along a line of time, drawn in characters. Pure: times in seconds, `now` is a parameter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

# What a moment of a version is drawn as, in Unicode and in ASCII, and what the legend says of it.
_STYLES = {
    "published": ("·", ".", "published"),
    "signs": ("█", "#", "signs"),
    "overlap": ("▒", "+", "may still be named"),
    "planned": ("░", ":", "to come"),
    "suspended": ("┄", "-", "suspended now"),
    "ended": (" ", " ", ""),
}
_STOPPED = frozenset({"DEACTIVATED", "COMPROMISED", "DESTROY_SCHEDULED", "DESTROYED"})


@dataclass(frozen=True, slots=True)
class Span:
    """A version's times in seconds since 1970, None where they are open; `state` as in ACTIVE."""

    number: int
    state: str
    create: float
    activate: float | None
    deactivate: float | None


@dataclass(frozen=True, slots=True)
class Timeline:
    """One bar per version, all of one width over the same stretch of time; `legend` explains what occurs in them."""

    bars: tuple[str, ...]
    now_column: int
    begin: float
    end: float
    legend: str


def draw(spans: Sequence[Span], now: float, width: int, *, is_ascii: bool = False) -> Timeline:
    """Draw versions, given oldest first, over the time from the first one's making to the last time that is known."""
    begin = min(span.create for span in spans)
    known = [time for span in spans for time in (span.create, span.activate, span.deactivate) if time is not None]
    # A little room after now: the newest version goes on.
    end = max(*known, now + (now - begin) * 0.05, begin + 1)
    step = (end - begin) / width
    moments = [begin + step * (column + 0.5) for column in range(width)]
    seen: set[str] = set()
    bars = []
    for span in spans:
        successors = [other.activate for other in spans if other.number > span.number and other.activate is not None]
        kinds = _kinds(span, moments, now, min(successors, default=None), step)
        seen.update(kinds)
        bars.append("".join(_STYLES[kind][1 if is_ascii else 0] for kind in kinds))
    legend = "   ".join(
        f"{style[1 if is_ascii else 0]} {style[2]}" for kind, style in _STYLES.items() if kind in seen and style[2]
    )
    return Timeline(tuple(bars), min(width - 1, int((now - begin) / step)), begin, end, legend)


def _kinds(span: Span, moments: Sequence[float], now: float, succeeded: float | None, step: float) -> list[str]:
    kinds = [_kind(span, moment, now, succeeded) for moment in moments]
    # What is shorter than a column is drawn all the same: a version that signed must be seen.
    if span.activate is not None and "signs" not in kinds and "overlap" not in kinds and span.activate <= now:
        column = min(len(moments) - 1, max(0, int((span.activate - moments[0]) / step + 0.5)))
        kinds[column] = "signs"
    return kinds


def _kind(span: Span, moment: float, now: float, succeeded: float | None) -> str:
    is_stopped = span.state in _STOPPED
    ended = span.deactivate is not None and moment >= span.deactivate
    if moment < span.create or ended or (is_stopped and span.deactivate is None and moment >= now):
        return "ended"
    if span.activate is None or moment < span.activate:
        return "published" if moment <= now or span.activate is not None else "ended"
    if moment > now:
        return "ended" if span.deactivate is None and span.state != "PRE_ACTIVATION" else "planned"
    if span.state == "SUSPENDED":
        return "suspended"
    return "overlap" if succeeded is not None and moment >= succeeded else "signs"
