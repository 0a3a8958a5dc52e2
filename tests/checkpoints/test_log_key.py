"""keys/audit-log signs checkpoints and nothing else, whoever asks and whatever the policy says."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from hsmsigner.domain.algorithm import ALGORITHMS
from hsmsigner.domain.certificate_names import WantedCertificate
from hsmsigner.domain.key import LOG_KEY, CkaId, VersionName
from hsmsigner.domain.policy import InputKind
from hsmsigner.errors import Reason, SignerError
from hsmsigner.operations.adoption import WantedAdoption
from hsmsigner.operations.certificates import Certificates
from hsmsigner.operations.key_changes import Cause
from tests.builder import ENGINE, OPERATOR, Signer, asked, fresh_id, make_signer, record_types

EVERYTHING = """
version: 1
grants:
  - principals: ["spiffe://test/**"]
    keys: ["**"]
    rights: [sign, sign_digest, get_public_key, create_key, rotate, manage_key, read_audit, seal_audit, publish_policy]
keys:
  - {match: "**", inputs: [message, digest], quotas: unlimited}
"""
VERSION = VersionName(LOG_KEY, 1)
ED25519 = ALGORITHMS["ED25519"]


def certificates(signer: Signer) -> Certificates:
    return Certificates(signer.store, signer.token, signer.governance, signer.clock)


async def sign(signer: Signer, **options: object) -> object:
    return await signer.signing.sign(asked(b"\x00" * 32, **options), None)  # type: ignore[arg-type]


WAYS: dict[str, Callable[[Signer], Awaitable[object]]] = {
    "sign": lambda signer: sign(signer, name=str(LOG_KEY)),
    "sign with a version": lambda signer: sign(signer, name=str(VERSION)),
    "sign a digest": lambda signer: sign(signer, name=str(LOG_KEY), kind=InputKind.DIGEST),
    "ask whether it would": lambda signer: sign(signer, name=str(LOG_KEY), validate_only=True),
    "create": lambda signer: signer.keys.create(OPERATOR, LOG_KEY, ED25519, fresh_id()),
    "adopt": lambda signer: signer.adoption.adopt(
        OPERATOR, LOG_KEY, WantedAdoption(ED25519, CkaId(b"x")), Cause(OPERATOR, "test", fresh_id())
    ),
    "request a certificate": lambda signer: certificates(signer).create_request(
        OPERATOR, LOG_KEY, WantedCertificate("CN=x", ())
    ),
    "sign its own certificate": lambda signer: certificates(signer).create_request(
        OPERATOR, VERSION, WantedCertificate("CN=x", ()), self_signed_us=10**12
    ),
    "attach a certificate": lambda signer: certificates(signer).attach(OPERATOR, VERSION, "", etag="", reason="test"),
}


@pytest.mark.parametrize("way", WAYS)
def test_nobody_can_have_it_sign_anything_else(tmp_path: Path, way: str) -> None:
    async def scenario() -> None:
        async with make_signer(tmp_path, policy=EVERYTHING) as signer:
            await signer.checkpoints.round()
            signatures = list(signer.token.signed)

            with pytest.raises(SignerError) as caught:
                await WAYS[way](signer)

            assert caught.value.reason is Reason.KEY_RESERVED
            assert signer.token.signed == signatures
            is_recorded = way in ("sign", "sign with a version", "sign a digest")
            assert record_types(signer.database)[3:] == (["sign.denied"] if is_recorded else [])

    asyncio.run(asyncio.wait_for(scenario(), 60))


def test_it_is_shown_like_any_other_key(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with make_signer(tmp_path, policy=EVERYTHING) as signer:
            await signer.checkpoints.round()

            assert [key.name for key in signer.keys.list(ENGINE)] == [LOG_KEY]
            assert signer.keys.public_key(ENGINE, LOG_KEY).name == VERSION

    asyncio.run(asyncio.wait_for(scenario(), 60))
