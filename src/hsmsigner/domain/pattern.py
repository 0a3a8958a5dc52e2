"""Patterns over whole names, segment by segment. No regular expressions: `A|B` and missing anchors bite (peers)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Pattern:
    """`/` divides segments; `*` stands for any run of characters inside one segment, `**` for any number of segments.

    The whole name must match: `keys/a` does not match `keys/a/versions/1`, and `**` matches everything.
    """

    text: str

    def matches(self, name: str) -> bool:
        """Whether the pattern covers the whole of `name`."""
        return _match_segments(self.text.split("/"), name.split("/"))


def _match_segments(patterns: list[str], names: list[str]) -> bool:
    # Rows of a table, as in edit distance: no pattern can make this exponential.
    reachable = [True] + [False] * len(names)
    for pattern in patterns:
        if pattern == "**":
            row = [any(reachable[: index + 1]) for index in range(len(names) + 1)]
        else:
            row = [False] + [reachable[index] and _match_segment(pattern, name) for index, name in enumerate(names)]
        reachable = row
    return reachable[-1]


def _match_segment(pattern: str, name: str) -> bool:
    first, *rest = pattern.split("*")
    if not rest:
        return pattern == name
    *middle, last = rest
    if len(name) < len(first) + len(last) or not name.startswith(first) or not name.endswith(last):
        return False
    position, end = len(first), len(name) - len(last)
    for part in middle:
        found = name.find(part, position, end)
        if found < 0:
            return False
        position = found + len(part)
    return True
