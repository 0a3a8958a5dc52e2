"""Logs that the appliance itself wrote, of the whole life of a key and of every outcome, exported and verified."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from hsmsigner.domain.lifecycle import Verb
from hsmsigner.errors import SignerError
from hsmsigner.operations.ports import SignOutcome, SignStatus, SignTask
from hsmsigner.verifier.command import main
from tests.builder import OPERATOR, POLICY, STRANGER, Signer, check_invariants, fresh_id, make_signer
from tests.verifier.export_writer import NoteKey, Writer

LOG = NoteKey()


def stored_records(database: Path) -> list[bytes]:
    with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as connection:
        return [row[0] for row in connection.execute("SELECT record FROM audit_records ORDER BY sequence")]


def verify(folder: Path, database: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    records = stored_records(database)
    export = Writer(records, [LOG], range(1, len(records), 7)).write(folder / "export")
    main(["export", str(export), "--log-key", LOG.vkey, "--json"])
    found: dict[str, object] = json.loads(capsys.readouterr().out)
    return found


def always(answer: SignOutcome) -> Callable[[SignTask], SignOutcome]:
    return lambda _task: answer


async def live(signer: Signer) -> None:
    """Signatures of every outcome, refusals, a rotation with an overlap, every verb, and another policy."""
    await signer.create_key()
    answers = [
        SignOutcome(SignStatus.NOT_CALLED, cause="test"),
        SignOutcome(SignStatus.UNKNOWN, cause="test"),
        SignOutcome(SignStatus.REFUSED, cause="test"),
    ]
    for answer in answers:
        request = fresh_id()
        signer.token.answer = always(answer)
        with suppress(SignerError):
            await signer.sign(request_id=request)
        signer.token.answer = lambda _task: None
        await signer.sign(request_id=request)
    for _ in range(12):
        with suppress(SignerError):
            await signer.sign(principal=STRANGER)
        with suppress(SignerError):
            await signer.sign()
    signer.clock.advance(20)
    await signer.rotate(overlap_us=60_000_000)
    await signer.sign(name="keys/settlement-eu/versions/1")
    await signer.sign()
    signer.clock.advance(61)
    await signer.look_after()
    await signer.change(Verb.SUSPEND, 2)
    with suppress(SignerError):
        await signer.sign()
    await signer.change(Verb.RESUME, 2)
    await signer.change(Verb.SCHEDULE_DESTROY, 1)
    await signer.change(Verb.RESTORE, 1)
    await signer.change(Verb.SCHEDULE_DESTROY, 1)
    await signer.change(Verb.DESTROY, 1)
    stricter = POLICY.replace("count: 5", "count: 1").replace("ops: [", 'others: ["x/*"], ops: [').encode()
    await signer.policies.publish(OPERATOR, stricter, expected_revision=1, comment="test", allow_lockout=False)
    for _ in range(3):
        with suppress(SignerError):
            await signer.sign()
    await signer.change(Verb.MARK_COMPROMISED, 2)


def test_log_of_a_whole_life_is_fine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async def scenario() -> Path:
        async with make_signer(tmp_path) as signer:
            await live(signer)
        return signer.database

    database = asyncio.run(asyncio.wait_for(scenario(), 60))

    found = verify(tmp_path, database, capsys)

    assert found["faults"] == []
    types = found["types"]
    assert isinstance(types, dict)
    assert {"sign.completed", "sign.failed", "sign.interrupted", "sign.denied", "key.destroyed"} <= set(types)


async def crash_while_resuming(folder: Path) -> Path:
    signer = Signer(folder)
    await signer.start()
    await signer.create_key()
    request = fresh_id()
    signer.token.answer = always(SignOutcome(SignStatus.UNKNOWN, cause="test"))
    with suppress(SignerError):
        await signer.sign(request_id=request)
    signer.token.answer, signer.token.gate = lambda _task: None, asyncio.Event()
    before = len(stored_records(signer.database))
    resumed = asyncio.create_task(signer.sign(request_id=request))
    async with asyncio.timeout(60):
        while len(stored_records(signer.database)) < before + 1:  # noqa: ASYNC110 - the store has no event for it
            await asyncio.sleep(0.01)
    await signer.die()
    resumed.cancel()
    signer.token.gate = None
    restarted = Signer(folder, token=signer.token)
    await restarted.start()
    await restarted.sign(request_id=request)
    await restarted.stop()
    return signer.database


def test_log_with_a_crash_while_a_signature_was_resumed_is_fine(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    database = asyncio.run(asyncio.wait_for(crash_while_resuming(tmp_path), 60))

    found = verify(tmp_path, database, capsys)

    assert found["faults"] == []
    check_invariants(database)
