"""Running what a test says of a whole signer, and the refusals it meets."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from hsmsigner.errors import Reason, SignerError
from tests.builder import Signer


def run(scenario: object) -> None:
    asyncio.run(asyncio.wait_for(scenario, 60))  # type: ignore[arg-type]


async def until(condition: Callable[[], bool]) -> None:
    """Poll: what is waited for is in the store, which tells nobody. `run` bounds the time."""
    while not condition():  # noqa: ASYNC110 - there is no event to wait for
        await asyncio.sleep(0.005)


async def refusal(signer: Signer, **options: object) -> SignerError:
    """The error with which a signature is refused."""
    with pytest.raises(SignerError) as caught:
        await signer.sign(**options)  # type: ignore[arg-type]
    return caught.value


async def refused(attempt: Awaitable[object]) -> Reason:
    """Why an attempt is refused."""
    with pytest.raises(SignerError) as caught:
        await attempt
    return caught.value.reason
