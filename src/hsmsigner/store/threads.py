"""Work in a thread, waited for to its end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


async def run_in(thread: ThreadPoolExecutor, work: Callable[[], T]) -> T:
    """Run in the thread, to the end even if the caller is cancelled.

    A BEGIN or COMMIT that was begun must be known to have ended before the connection is used again.
    """
    ended = asyncio.get_running_loop().run_in_executor(thread, work)
    try:
        return await asyncio.shield(ended)
    except asyncio.CancelledError:
        await asyncio.wait({ended})
        raise
