"""Progress on a terminal, and nothing where there is none."""

from __future__ import annotations

import sys
import time


class ProgressLine:
    """One line on stderr that is written over."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._is_shown = sys.stderr.isatty()
        self._begin_s = time.monotonic()

    @property
    def seconds(self) -> float:
        """Since it began."""
        return time.monotonic() - self._begin_s

    def tell(self, done: int, total: int) -> None:
        """Show how far it is."""
        if self._is_shown and total:
            share = done / total
            left_s = self.seconds * (1 - share) / share if share else 0.0
            bar = "█" * round(20 * share) + "░" * (20 - round(20 * share))
            sys.stderr.write(f"\r{self._what} {bar} {done:,} of {total:,} records, about {left_s:.0f} s left \x1b[K")
            sys.stderr.flush()

    def clear(self) -> None:
        """Take the line away again."""
        if self._is_shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
