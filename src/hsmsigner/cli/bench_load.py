"""Closed-loop load for `hsmsigner bench`: so many calls in flight, each followed at once by the next."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import uvloop
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import load_der_public_key

from hsmsigner.client import AsyncSignerClient, Signature, SigningClientError, SignItem

# As long as a short payment instruction.
MESSAGE = b"<Document>" + b"x" * 280 + b"</Document>"
_WARM_UP_S = 0.5
# Something is wrong, and more of it would teach nothing.
_MOST_FAILURES = 50


@dataclass(frozen=True, slots=True)
class LoadPlan:
    """What to do: `in_flight` calls of `items` signatures each, for `seconds`, or until `signatures` are made."""

    way: Literal["unary", "stream", "batch"]
    in_flight: int
    items: int = 1
    seconds: float = 5.0
    signatures: int | None = None


@dataclass(frozen=True, slots=True)
class LoadResult:
    """Signatures (or echoes) per second, and how long one call took. `failures` of `calls` are not in the rate."""

    calls: int
    rate: float
    p50_ms: float
    p99_ms: float
    failures: int = 0
    first_failure: str = ""


class _Failed(Exception):
    """A call that did not do what was measured."""


async def closed_loop(
    call: Callable[[], Awaitable[object]], plan: LoadPlan, clock: Callable[[], float] = time.perf_counter
) -> LoadResult:
    """Keep `plan.in_flight` calls under way.

    Calls count by when they end: within `plan.seconds` after a short warm-up, or all of them when `plan.signatures` are
    asked for. Failures count whenever they happen.
    """
    latencies: list[float] = []
    failures: list[str] = []
    begin = clock() + (0.0 if plan.signatures else _WARM_UP_S)
    end = begin + plan.seconds
    remaining = None if plan.signatures is None else -(-plan.signatures // plan.items)

    async def worker() -> None:
        nonlocal remaining
        while len(failures) < _MOST_FAILURES:
            start = clock()
            if remaining is None:
                if start >= end:
                    return
            elif remaining <= 0:
                return
            else:
                remaining -= 1
            try:
                await call()
            except (SigningClientError, _Failed) as error:
                failures.append(str(error))
                continue
            now = clock()
            if remaining is not None or begin <= now < end:
                latencies.append(now - start)

    await asyncio.gather(*(worker() for _ in range(plan.in_flight)))
    # With too many failures the run may end before its time, or before the warm-up does.
    elapsed = clock() - begin if remaining is not None or len(failures) >= _MOST_FAILURES else plan.seconds
    latencies.sort()
    return LoadResult(
        calls=len(latencies) + len(failures),
        rate=len(latencies) * plan.items / elapsed if latencies else 0.0,
        p50_ms=_quantile(latencies, 0.50) * 1000,
        p99_ms=_quantile(latencies, 0.99) * 1000,
        failures=len(failures),
        first_failure=failures[0] if failures else "",
    )


def run_load(profile: Path, key: str, plan: LoadPlan) -> LoadResult:
    """Load an appliance, in this process. At the end one signature of the run is verified by its public key."""
    return uvloop.run(_run_load(profile, key, plan))


async def _run_load(profile: Path, key: str, plan: LoadPlan) -> LoadResult:
    newest: list[Signature] = []

    async with AsyncSignerClient.from_profile(profile) as client:

        async def one() -> None:
            newest[:] = [await client.sign(key, MESSAGE, unary=plan.way == "unary")]

        async def batch() -> None:
            outcomes = await client.batch_sign([SignItem(key, MESSAGE) for _ in range(plan.items)])
            for outcome in outcomes:
                if isinstance(outcome, SigningClientError):
                    raise _Failed(str(outcome))
                newest[:] = [outcome]

        result = await closed_loop(batch if plan.way == "batch" else one, plan)
        if newest:
            _verify((await client.get_public_key(newest[0].name)).der, newest[0].signature)
    return result


def _verify(public_key: bytes, signature: bytes) -> None:
    loaded = load_der_public_key(public_key)
    if not isinstance(loaded, ec.EllipticCurvePublicKey):
        raise TypeError("the bench's key is not an EC key")
    half = len(signature) // 2
    r, s = int.from_bytes(signature[:half], "big"), int.from_bytes(signature[half:], "big")
    loaded.verify(encode_dss_signature(r, s), MESSAGE, ec.ECDSA(hashes.SHA256()))


def _quantile(ordered: list[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 0.0
