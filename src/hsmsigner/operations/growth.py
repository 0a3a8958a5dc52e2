"""How far the log has grown, as far as this process knows; wakes those who wait for more of it."""

from __future__ import annotations

import asyncio


class LogGrowth:
    """Told of every commit by the store, on the event loop. Costs a comparison where nobody waits.

    What other processes write is not told here: whoever waits looks into the store now and then.
    """

    def __init__(self) -> None:
        self.size = 0
        self._waiting: set[asyncio.Future[None]] = set()

    def announce(self, size: int) -> None:
        """The log has this many durable records."""
        if size > self.size:
            self.size = size
            for waiter in self._waiting:
                if not waiter.done():
                    waiter.set_result(None)

    async def wait_beyond(self, size: int, patience_s: float) -> None:
        """Return when there are more records than `size`, or when so much time has passed."""
        until_s = asyncio.get_running_loop().time() + patience_s
        while self.size <= size:
            waiter = asyncio.get_running_loop().create_future()
            self._waiting.add(waiter)
            try:
                async with asyncio.timeout_at(until_s):
                    await waiter
            except TimeoutError:
                return
            finally:
                self._waiting.discard(waiter)
