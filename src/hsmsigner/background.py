"""Tasks of the frontend beside its server."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

from hsmsigner.errors import ConfigurationError

_log = logging.getLogger(__name__)


class Background:
    """Tasks beside the server. One that fails stops the frontend: the supervisor starts a whole one."""

    def __init__(self, stopping: asyncio.Event) -> None:
        self._stopping = stopping
        self._tasks: list[asyncio.Task[None]] = []

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        """Run something until it ends or `finish` is called; the committer comes first."""
        task = asyncio.create_task(work)
        task.add_done_callback(self._ended)
        self._tasks.append(task)

    async def finish(self) -> None:
        """Wait for the committer, which was told to stop; cancel the others; raise what went wrong."""
        committer, *others = self._tasks
        for task in others:
            task.cancel()
        await asyncio.wait(others)
        await committer
        for task in others:
            if not task.cancelled():
                task.result()

    def _ended(self, task: asyncio.Task[None]) -> None:
        if task.cancelled() or task.exception() is None:
            return
        if isinstance(task.exception(), ConfigurationError):
            # No restart cures it: said in plain words when the process ends with it.
            self._stopping.set()
        else:
            _log.critical("a part of the frontend failed; it stops to be started anew", exc_info=task.exception())
            self._stopping.set()
