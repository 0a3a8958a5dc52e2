"""Health: a pair that the token lacks is to be seen, and sends nobody away who wants another key."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from grpc_health.v1 import health_pb2

from hsmsigner.api.health import PAIRS, Health
from hsmsigner.operations.reconcile import compare_with_token, missing_pairs
from tests.builder import Signer, make_signer

SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


async def shown(health: Health, service: str) -> Any:
    await health.check()
    context: Any = None  # not looked at for a service that is known
    return (await health.servicer.Check(health_pb2.HealthCheckRequest(service=service), context)).status


async def compare(signer: Signer) -> None:
    await compare_with_token(signer.store, signer.token, signer.governance, signer.clock)


def test_missing_pair_is_shown_by_health_of_its_own_and_named_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        async with make_signer(tmp_path) as signer:
            health = Health(signer.token, lambda: True, lambda: missing_pairs(signer.governance.newest))
            cka_id = (await signer.create_key()).primary.cka_id
            assert await shown(health, PAIRS) == SERVING

            pair = signer.token.keys.pop(cka_id)
            await compare(signer)
            assert (await shown(health, PAIRS), await shown(health, "")) == (NOT_SERVING, SERVING)

            signer.token.keys[cka_id] = pair
            await compare(signer)
            assert await shown(health, PAIRS) == SERVING

    caplog.set_level("INFO", "hsmsigner.api.health")
    asyncio.run(asyncio.wait_for(scenario(), 60))
    told = [getattr(record, "missing", None) for record in caplog.records]
    assert ["keys/settlement-eu/versions/1"] in told
