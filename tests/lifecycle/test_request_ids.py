"""One request_id is one command, whichever method takes it; what had no effect takes no id."""

from __future__ import annotations

from collections.abc import Awaitable
from pathlib import Path

from hsmsigner.domain.algorithm import algorithm_named
from hsmsigner.domain.instant import Instant
from hsmsigner.domain.key import CkaId, KeyName
from hsmsigner.domain.signing import RequestId
from hsmsigner.errors import Reason
from hsmsigner.operations.adoption import WantedAdoption
from hsmsigner.operations.key_changes import Cause, WantedRotation
from tests.builder import OPERATOR, Signer, fresh_id, make_signer
from tests.scenarios import refused, run

HOUR = 3_600_000_000
P256 = algorithm_named("ECDSA_P256_SHA256")
EU, US = KeyName("settlement-eu"), KeyName("settlement-us")
FIRST, SECOND = CkaId(b"pair 1"), CkaId(b"pair 2")


async def with_pairs(signer: Signer) -> None:
    """Two keys, and two pairs that were made by others."""
    await signer.create_key()
    await signer.create_key("settlement-us")
    for cka_id in (FIRST, SECOND):
        await signer.token.generate(cka_id, "", P256)


def caused(request_id: RequestId, reason: str = "test") -> Cause:
    return Cause(OPERATOR, reason, request_id)


def create(signer: Signer, request_id: RequestId, name: KeyName) -> Awaitable[object]:
    return signer.keys.create(OPERATOR, name, P256, request_id)


def rotate(
    signer: Signer, request_id: RequestId, name: KeyName, reason: str = "test", **wanted: object
) -> Awaitable[object]:
    return signer.rotations.rotate(OPERATOR, name, WantedRotation(**wanted), caused(request_id, reason))  # type: ignore[arg-type]


def adopt(signer: Signer, request_id: RequestId, name: KeyName, cka_id: CkaId, **wanted: bool) -> Awaitable[object]:
    return signer.adoption.adopt(OPERATOR, name, WantedAdoption(P256, cka_id, **wanted), caused(request_id))


def test_an_id_that_rotated_a_key_does_nothing_else(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with make_signer(tmp_path) as signer:
            await with_pairs(signer)
            used, later = fresh_id(), Instant(signer.clock.now + HOUR)
            await rotate(signer, used, EU)

            for other in (
                rotate(signer, used, US),
                rotate(signer, used, EU, activate_time=later),
                rotate(signer, used, EU, overlap_us=HOUR),
                rotate(signer, used, EU, overlap_us=0),
                rotate(signer, used, EU, reason="another"),
                create(signer, used, KeyName("new")),
                adopt(signer, used, EU, FIRST),
            ):
                assert await refused(other) is Reason.REQUEST_ID_REUSED
            await rotate(signer, used, EU)
            assert [len(signer.key(name.key_id).versions) for name in (EU, US)] == [2, 1]

    run(scenario())


def test_an_id_that_adopted_a_pair_does_nothing_else(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with make_signer(tmp_path) as signer:
            await with_pairs(signer)
            used, adopted = fresh_id(), KeyName("adopted")
            await adopt(signer, used, adopted, FIRST)

            for other in (
                create(signer, used, adopted),
                create(signer, used, KeyName("new")),
                rotate(signer, used, adopted),
                adopt(signer, used, adopted, SECOND),
                adopt(signer, used, EU, FIRST),
                adopt(signer, used, adopted, FIRST, allow_unprotected=True),
            ):
                assert await refused(other) is Reason.REQUEST_ID_REUSED
            await adopt(signer, used, adopted, FIRST)
            assert len(signer.key("adopted").versions) == 1

    run(scenario())


def test_an_id_that_made_a_key_does_nothing_else(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with make_signer(tmp_path) as signer:
            await with_pairs(signer)
            used, new = fresh_id(), KeyName("new")
            await create(signer, used, new)

            for other in (
                create(signer, used, KeyName("newer")),
                rotate(signer, used, new),
                adopt(signer, used, new, FIRST),
            ):
                assert await refused(other) is Reason.REQUEST_ID_REUSED
            await create(signer, used, new)

    run(scenario())


def test_an_id_still_stands_for_its_command_after_a_restart(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with make_signer(tmp_path) as signer:
            await with_pairs(signer)
            used = fresh_id()
            await rotate(signer, used, EU)
            await signer.die()
            await signer.start()
            assert await refused(rotate(signer, used, US)) is Reason.REQUEST_ID_REUSED

    run(scenario())


def test_a_command_that_was_refused_or_only_checked_takes_no_id(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with make_signer(tmp_path) as signer:
            await with_pairs(signer)
            mine = fresh_id()
            assert await refused(rotate(signer, mine, EU, etag="k99")) is Reason.ETAG_MISMATCH
            await signer.rotations.rotate(OPERATOR, EU, WantedRotation(), caused(mine), validate_only=True)
            await signer.keys.create(OPERATOR, KeyName("new"), P256, mine, validate_only=True)
            await rotate(signer, mine, US)

    run(scenario())


def test_ids_of_two_principals_are_two_ids(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with make_signer(tmp_path) as signer:
            await with_pairs(signer)
            used, other = fresh_id(), type(OPERATOR)("spiffe://test/ops/another")
            await rotate(signer, used, EU)
            await signer.rotations.rotate(other, US, WantedRotation(), Cause(other, "test", used))

    run(scenario())
