"""The store file taken away or filled up under a running signer: P3 and P9."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from hsmsigner.errors import Reason, SignerError
from tests.builder import Signer

# Fails the statement that would make a signature durable, as a full disk or a damaged page does.
BROKEN_PAGE = """
CREATE TRIGGER broken BEFORE UPDATE ON sign_requests WHEN new.state = 'COMPLETED'
BEGIN SELECT raise(FAIL, 'broken page'); END
"""
FULL_DISK = "CREATE TRIGGER full BEFORE INSERT ON audit_records BEGIN SELECT raise(FAIL, 'disk full'); END"


def damage(database: Path, statement: str) -> None:
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute(statement)


def test_nothing_is_signed_once_the_store_file_is_gone(tmp_path: Path) -> None:
    async def scenario() -> None:
        signer = Signer(tmp_path)
        await signer.start()
        await signer.create_key()
        await signer.sign()
        for suffix in ("", "-wal", "-shm"):
            signer.database.with_name(signer.database.name + suffix).unlink(missing_ok=True)
        try:
            with pytest.raises(SignerError) as refused:
                await signer.sign()
            assert refused.value.reason is Reason.AUDIT_UNAVAILABLE
        finally:
            await signer.die()

    asyncio.run(scenario())


def test_a_signature_that_was_withheld_is_not_in_the_operational_log_either(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        signer = Signer(tmp_path)
        await signer.start()
        await signer.create_key()
        damage(signer.database, BROKEN_PAGE)
        try:
            with pytest.raises(SignerError):
                await signer.sign()
        finally:
            await signer.die()

    asyncio.run(scenario())
    assert "broken page" in caplog.text
    assert "[parameters:" not in caplog.text


def test_signing_counts_as_healed_only_when_a_record_can_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hsmsigner.operations.committer.HEAL_EVERY_S", 0.01)

    async def scenario() -> None:
        signer = Signer(tmp_path)
        await signer.start()
        await signer.create_key()
        damage(signer.database, FULL_DISK)
        try:
            with pytest.raises(SignerError):
                await signer.sign()
            for _ in range(50):
                assert not signer.committer.can_record, "it says that it can record, and it cannot"
                await asyncio.sleep(0.01)
        finally:
            await signer.die()

    asyncio.run(scenario())
