"""Adopting gives a key a version that signs: it takes the right to make keys as well as the right to manage them."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from hsmsigner.domain.algorithm import algorithm_named
from hsmsigner.domain.key import CkaId, KeyName
from hsmsigner.errors import Reason, SignerError
from hsmsigner.operations.adoption import WantedAdoption
from hsmsigner.operations.key_changes import Cause
from tests.builder import OPERATOR, POLICY, Signer, fresh_id, make_signer

P256, PAIR = algorithm_named("ECDSA_P256_SHA256"), CkaId(b"ceremony")
RIGHTS = "[create_key, rotate, manage_key, read_audit, publish_policy, get_public_key]"


async def adopt(signer: Signer, key_id: str) -> object:
    wanted, cause = WantedAdoption(P256, PAIR), Cause(OPERATOR, "test", fresh_id())
    return await signer.adoption.adopt(OPERATOR, KeyName(key_id), wanted, cause)


@pytest.mark.parametrize("lacking", ["create_key, ", "manage_key, "])
@pytest.mark.parametrize("key_id", ["settlement-eu", "new"])
def test_one_right_alone_does_not_adopt(tmp_path: Path, lacking: str, key_id: str) -> None:
    async def scenario() -> None:
        async with make_signer(tmp_path) as signer:
            await signer.create_key()
            await signer.token.generate(PAIR, "", P256)
            less = POLICY.replace(RIGHTS, RIGHTS.replace(lacking, ""))
            await signer.policies.publish(
                OPERATOR, less.encode(), expected_revision=0, comment="test", allow_lockout=False
            )
            with pytest.raises(SignerError) as caught:
                await adopt(signer, key_id)
            assert caught.value.reason is Reason.KEY_NOT_FOUND_OR_FORBIDDEN

    asyncio.run(asyncio.wait_for(scenario(), 60))


def test_both_rights_together_adopt(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with make_signer(tmp_path) as signer:
            await signer.token.generate(PAIR, "", P256)
            await adopt(signer, "new")

    asyncio.run(asyncio.wait_for(scenario(), 60))
