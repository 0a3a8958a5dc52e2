"""Waiting for the log to grow."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from hsmsigner.operations.growth import LogGrowth

# Longer than a scenario may take: who is not woken fails it.
LONG_S, SHORT_S = 600.0, 0.01


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    async def whole() -> None:
        await scenario()

    asyncio.run(asyncio.wait_for(whole(), 60))


def test_everyone_who_waits_for_less_is_woken() -> None:
    async def scenario() -> None:
        growth = LogGrowth()
        near, far = (asyncio.create_task(growth.wait_beyond(size, LONG_S)) for size in (3, 10))
        await asyncio.sleep(0)
        growth.announce(4)
        await near
        assert not far.done()
        growth.announce(11)
        await far

    run(scenario)


def test_what_is_there_already_is_not_waited_for() -> None:
    async def scenario() -> None:
        growth = LogGrowth()
        growth.announce(5)
        await growth.wait_beyond(4, LONG_S)

    run(scenario)


def test_patience_ends() -> None:
    async def scenario() -> None:
        growth = LogGrowth()
        await growth.wait_beyond(0, SHORT_S)
        assert growth.size == 0

    run(scenario)


def test_a_size_that_was_seen_is_never_taken_back() -> None:
    async def scenario() -> None:
        growth = LogGrowth()
        growth.announce(5)
        growth.announce(3)
        assert growth.size == 5

    run(scenario)


def test_a_waiter_that_was_cancelled_leaves_nothing_behind() -> None:
    async def scenario() -> None:
        growth = LogGrowth()
        waiting = asyncio.create_task(growth.wait_beyond(0, LONG_S))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        growth.announce(1)
        await growth.wait_beyond(0, LONG_S)

    run(scenario)
