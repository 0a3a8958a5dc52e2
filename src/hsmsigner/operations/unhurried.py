"""Work that must come to its end even when the caller who asked for it has gone."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

_Result = TypeVar("_Result")


class Unhurried:
    """Runs work in tasks of its own: a caller that is cancelled leaves, and the work goes on.

    Making a pair takes a token seconds. Broken off by every impatient caller, it would be looked for before it is
    there, and a worker that does not find what it should ends, to open the token anew: one caller would stop signing.
    """

    def __init__(self) -> None:
        # asyncio itself keeps only weak references to tasks.
        self._tasks: set[asyncio.Task[Any]] = set()

    async def run(self, work: Coroutine[Any, Any, _Result]) -> _Result:
        """Await the work; its error reaches the caller, if the caller is still there."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return await asyncio.shield(task)

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            # Looked at, so that asyncio does not complain of an error nobody asked for; what it left is found again.
            task.exception()
