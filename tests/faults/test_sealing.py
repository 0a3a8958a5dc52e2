"""Sealed records are gone from the store, and every proof can still be given; whatever breaks off in between."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from hsmsigner.domain.principal import Principal
from hsmsigner.errors import Reason, SignerError
from hsmsigner.operations import sealing as module
from hsmsigner.operations.ports import Checkpoint
from hsmsigner.operations.sealing import Sealing
from tests.builder import OPERATOR, POLICY, STRANGER, Signer, make_signer, read_log

SEGMENT = 256
ARCHIVE = "s3://archive/2026"


@pytest.fixture(autouse=True)
def _small_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SEGMENT", SEGMENT)
    monkeypatch.setattr(module, "_DELETED_AT_ONCE", 50)


@asynccontextmanager
async def grown(tmp_path: Path) -> AsyncIterator[Signer]:
    """A signer with some 640 records and a checkpoint over all of them."""
    policy = POLICY.replace("read_audit,", "read_audit, seal_audit,").replace("count: 5,", "count: 900,")
    async with make_signer(tmp_path, has_whole_log=False, policy=policy.replace("count: 20,", "count: 900,")) as signer:
        await signer.create_key()
        await asyncio.gather(*(signer.sign() for _ in range(320)))
        async with signer.store.transaction() as transaction:
            head = transaction.tree_head
            transaction.checkpoints.insert(Checkpoint(head.size, head.root_hash, transaction.last_time))
            transaction.checkpoints.save_note(head.size, "note", 0)
        yield signer


async def seal(signer: Signer, end: int = 512, root: bytes | None = None, *, principal: Principal = OPERATOR) -> int:
    root = await signer.store.root_at(end) if root is None else root
    return await Sealing(signer.store, signer.governance, signer.clock).seal(principal, end, root, ARCHIVE)


def stored(database: Path) -> tuple[int, int]:
    with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as connection:
        found = connection.execute("SELECT count(*), min(sequence) FROM audit_records").fetchone()
    return int(found[0]), int(found[1])


def test_sealed_records_leave_and_every_proof_stays(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with grown(tmp_path) as signer:
            before = await signer.store.inclusion_proof(3, 600)
            roots = [await signer.store.root_at(size) for size in (1, 255, 256, 300, 512, 600)]

            assert await seal(signer) == 512

            assert stored(signer.database)[1] == 512
            assert await signer.store.inclusion_proof(3, 600) == before
            assert [await signer.store.root_at(size) for size in (1, 255, 256, 300, 512, 600)] == roots
            assert len(await signer.store.consistency_proof(200, 600)) > 0
            with pytest.raises(SignerError) as caught:
                await signer.store.read_log(511, 10)
            assert (caught.value.reason, caught.value.metadata["first_sequence"]) == (Reason.RECORDS_SEALED, "512")
            assert (await signer.store.read_log(512, 10)).records[0][0] == 512
            last = read_log(signer.database)[-1]
            assert (last["type"], last["principal"], last["archive"]) == ("log.sealed", OPERATOR.text, ARCHIVE)

    asyncio.run(scenario())


def test_a_sealed_log_starts_again_and_goes_on(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with grown(tmp_path) as signer:
            await seal(signer)
            await signer.stop()
            await signer.start()
            await signer.sign()
            await seal(signer)
            assert [record["type"] for record in read_log(signer.database)].count("log.sealed") == 1

    asyncio.run(scenario())


def test_kill_9_while_deleting_leaves_rubbish_that_the_next_start_removes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def killed(_self: Sealing) -> None:
        raise asyncio.CancelledError

    async def scenario() -> None:
        async with grown(tmp_path) as signer:
            with monkeypatch.context() as patch:
                patch.setattr(Sealing, "clean", killed)
                with pytest.raises(asyncio.CancelledError):
                    await seal(signer)
            await signer.die()
            await signer.start()
            assert stored(signer.database)[1] == 0
            with pytest.raises(SignerError) as caught:
                await signer.store.read_log(0, 10)
            assert caught.value.reason is Reason.RECORDS_SEALED

            await Sealing(signer.store, signer.governance, signer.clock).clean_at_start()

            assert stored(signer.database)[1] == 512

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("end", "root", "principal", "reason"),
    [
        (100, None, OPERATOR, Reason.INVALID_FIELD),
        (512, bytes(32), OPERATOR, Reason.INVALID_FIELD),
        (512, b"", OPERATOR, Reason.INVALID_FIELD),
        (51_200, bytes(32), OPERATOR, Reason.INVALID_FIELD),
        (512, None, STRANGER, Reason.FORBIDDEN),
    ],
    ids=["not a segment", "another log", "no root", "beyond the log", "not theirs"],
)
def test_what_may_not_be_sealed_stays(
    tmp_path: Path, end: int, root: bytes | None, principal: Principal, reason: Reason
) -> None:
    async def scenario() -> None:
        async with grown(tmp_path) as signer:
            before = stored(signer.database)
            with pytest.raises(SignerError) as caught:
                await seal(signer, end, root, principal=principal)
            assert caught.value.reason is reason
            assert stored(signer.database) == before

    asyncio.run(scenario())


def test_only_what_a_checkpoint_covers_is_sealed(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with grown(tmp_path) as signer:
            await asyncio.gather(*(signer.sign() for _ in range(100)))
            with pytest.raises(SignerError, match="newest checkpoint"):
                await seal(signer, 768)

    asyncio.run(scenario())
