"""The grace before a destruction by schedule: its time must have been seen past for a while that no clock can shorten.

Destruction cannot be undone, and the machine's clock may jump years ahead. Whoever sets it right again within the grace
loses no key. A start of the appliance, or of another frontend as scheduler, only makes it wait anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from time import monotonic

from hsmsigner.domain.rotation import DueDestruction

# Rounds are a second apart. What nobody watched for longer than this may have been not due in between.
_LONGEST_BREAK_S = 60.0


class DestructionGrace:
    """Remembers since when each destruction has been due without a break. `tick` is monotonic, in seconds."""

    def __init__(self, grace_s: float, tick: Callable[[], float] = monotonic) -> None:
        self._grace_s = grace_s
        self._tick = tick
        self._since: dict[DueDestruction, float] = {}
        self._observed = tick()

    def observe(self, due: Iterable[DueDestruction]) -> frozenset[DueDestruction]:
        """Take note of what is due now, all of it; gives what has been due for long enough."""
        tick = self._tick()
        before = self._since if tick - self._observed <= _LONGEST_BREAK_S else {}
        self._since, self._observed = {one: before.get(one, tick) for one in due}, tick
        return frozenset(one for one, since in self._since.items() if tick - since >= self._grace_s)
