"""The crash table of docs/architecture.md, row by row: quota, log, and above all whether a signature was released."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from hsmsigner.domain.lifecycle import Verb
from hsmsigner.errors import Reason, SignerError
from hsmsigner.operations.ports import SignOutcome, SignStatus
from hsmsigner.store.transaction import SqlTransaction
from hsmsigner.store.unit_of_work import SqlStore
from tests.builder import (
    STRANGER,
    Signer,
    asked,
    check_invariants,
    fresh_id,
    make_signer,
    record_types,
    usage_total,
)
from tests.fakes import FakeToken
from tests.scenarios import refusal, run, until


def test_a_signature_is_authorized_then_completed_then_released(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with make_signer(tmp_path) as signer:
            await signer.create_key()

            answer = await signer.sign()

            assert answer.signature
            assert record_types(signer.database)[-2:] == ["sign.authorized", "sign.completed"]
            assert usage_total(signer.database, "burst") == 1

    run(scenario())


def test_a_refused_request_is_recorded_not_debited_and_not_signed(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with make_signer(tmp_path) as signer:
            await signer.create_key()

            error = await refusal(signer, principal=STRANGER)

            assert error.reason is Reason.KEY_NOT_FOUND_OR_FORBIDDEN
            assert record_types(signer.database)[-1] == "sign.denied"
            assert usage_total(signer.database, "burst") == 0
            assert signer.token.signed == []

    run(scenario())


@pytest.mark.parametrize(
    ("status", "reason", "record", "kept"),
    [
        (SignStatus.NOT_CALLED, Reason.TOKEN_UNAVAILABLE, "sign.failed", 0),
        (SignStatus.REFUSED, Reason.TOKEN_REFUSED, "sign.failed", 1),
        (SignStatus.WRONG_SIGNATURE, Reason.SIGNATURE_INVALID, "sign.failed", 1),
        (SignStatus.UNKNOWN, Reason.SIGNATURE_INTERRUPTED, "sign.interrupted", 1),
    ],
)
def test_what_the_token_answers_decides_debit_and_record(
    tmp_path: Path, status: SignStatus, reason: Reason, record: str, kept: int
) -> None:
    async def scenario() -> None:
        async with make_signer(tmp_path) as signer:
            await signer.create_key()
            signer.token.answer = lambda _task: SignOutcome(status, cause="test")

            error = await refusal(signer)

            assert error.reason is reason
            assert record_types(signer.database)[-2:] == ["sign.authorized", record]
            assert usage_total(signer.database, "burst") == kept

    run(scenario())


@pytest.mark.parametrize("status", [SignStatus.REFUSED, SignStatus.UNKNOWN])
def test_a_retry_after_a_lost_signature_signs_under_the_same_debit(tmp_path: Path, status: SignStatus) -> None:
    async def scenario() -> None:
        async with make_signer(tmp_path) as signer:
            await signer.create_key()
            request_id = fresh_id()
            signer.token.answer = lambda _task: SignOutcome(status)
            await refusal(signer, request_id=request_id)
            signer.token.answer = lambda _task: None

            answer = await signer.sign(request_id=request_id)

            assert answer.signature
            assert usage_total(signer.database, "burst") == 1
            assert (await signer.sign(request_id=request_id)) == answer

    run(scenario())


def test_a_key_whose_signature_was_wrong_rests(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with make_signer(tmp_path) as signer:
            await signer.create_key()
            signer.token.answer = lambda _task: SignOutcome(SignStatus.WRONG_SIGNATURE)
            await refusal(signer)
            signer.token.answer = lambda _task: None

            error = await refusal(signer)

            assert error.reason is Reason.KEY_UNHEALTHY
            assert error.retry_after_s is not None
            assert usage_total(signer.database, "burst") == 1

    run(scenario())


def test_without_a_token_nothing_is_counted_and_stored_answers_still_come(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with make_signer(tmp_path) as signer:
            await signer.create_key()
            request_id = fresh_id()
            first = await signer.sign(request_id=request_id)
            signer.token.connected = False

            error = await refusal(signer)

            assert error.reason is Reason.TOKEN_UNAVAILABLE
            assert usage_total(signer.database, "burst") == 1
            assert (await signer.sign(request_id=request_id)) == first

    run(scenario())


def test_kill_between_authorization_and_outcome_is_interrupted_at_the_next_start(tmp_path: Path) -> None:
    async def scenario() -> None:
        signer = Signer(tmp_path, token=FakeToken(gate=asyncio.Event()))
        await signer.start()
        await signer.create_key()
        request_id = fresh_id()
        waiting = asyncio.create_task(signer.sign(request_id=request_id))
        await until(lambda: "sign.authorized" in record_types(signer.database))
        await signer.die()
        waiting.cancel()
        signer.token.gate = None

        await signer.start()

        assert signer.interrupted == 1
        assert record_types(signer.database)[-1] == "sign.interrupted"
        answer = await signer.sign(request_id=request_id)
        assert answer.signature
        assert usage_total(signer.database, "burst") == 1
        await signer.stop()
        check_invariants(signer.database)

    run(scenario())


class FailingStore(SqlStore):
    """A store whose commits fail when told: either nothing was written, or all of it and the answer was lost."""

    fail: str = ""

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[SqlTransaction]:
        async with super().transaction() as transaction:
            yield transaction
            if self.fail == "before":
                raise SignerError(Reason.AUDIT_UNAVAILABLE, "disk full")
        if self.fail == "after":
            raise SignerError(Reason.AUDIT_UNAVAILABLE, "disk gone")

    async def reopen(self) -> None:
        await super().reopen()
        if self.fail:
            raise SignerError(Reason.AUDIT_UNAVAILABLE, "still broken")


@pytest.mark.parametrize("moment", ["before", "after"])
def test_nothing_is_signed_when_the_authorization_cannot_be_recorded(tmp_path: Path, moment: str) -> None:
    async def scenario() -> None:
        async with make_signer(tmp_path, store_class=FailingStore) as signer:
            await signer.create_key()
            store = signer.store
            assert isinstance(store, FailingStore)
            store.fail = moment

            error = await refusal(signer)
            during = await refusal(signer)

            assert error.reason is during.reason is Reason.AUDIT_UNAVAILABLE
            assert signer.token.signed == []
            assert not signer.committer.can_record
            store.fail = ""
            await until(lambda: signer.committer.can_record)
            assert (await signer.sign()).signature

    run(scenario())


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_signature_whose_outcome_cannot_be_recorded_is_withheld(tmp_path: Path, moment: str) -> None:
    async def scenario() -> None:
        gate = asyncio.Event()
        async with make_signer(tmp_path, store_class=FailingStore, token=FakeToken(gate=gate)) as signer:
            await signer.create_key()
            store, request_id = signer.store, fresh_id()
            assert isinstance(store, FailingStore)
            waiting = asyncio.create_task(refusal(signer, request_id=request_id))
            await until(lambda: "sign.authorized" in record_types(signer.database))
            store.fail = moment

            gate.set()
            error = await waiting

            assert error.reason is Reason.AUDIT_UNAVAILABLE
            store.fail = ""
            await until(lambda: signer.committer.can_record)
            assert (await signer.sign(request_id=request_id)).signature
            assert usage_total(signer.database, "burst") == 1

    run(scenario())


def test_a_deadline_that_passes_in_the_queue_counts_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with make_signer(tmp_path) as signer:
            await signer.create_key()
            before = record_types(signer.database)

            with pytest.raises(SignerError) as caught:
                await signer.signing.sign(asked(), asyncio.get_running_loop().time() - 1)

            assert caught.value.reason is Reason.DEADLINE_PASSED
            assert record_types(signer.database) == before
            assert usage_total(signer.database, "burst") == 0

    run(scenario())


def test_a_caller_that_goes_away_changes_nothing_about_its_signature(tmp_path: Path) -> None:
    async def scenario() -> None:
        gate = asyncio.Event()
        async with make_signer(tmp_path, token=FakeToken(gate=gate)) as signer:
            await signer.create_key()
            request_id = fresh_id()
            gone = asyncio.create_task(signer.sign(request_id=request_id))
            await until(lambda: "sign.authorized" in record_types(signer.database))

            gone.cancel()
            gate.set()

            assert (await signer.sign(request_id=request_id)).signature
            assert len(signer.token.signed) == 1

    run(scenario())


def test_a_caller_that_goes_away_while_it_waits_takes_its_request_back(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with make_signer(tmp_path) as signer:
            await signer.create_key()
            before = record_types(signer.database)
            gone = asyncio.create_task(signer.sign())
            await asyncio.sleep(0)

            gone.cancel()
            await asyncio.gather(gone, return_exceptions=True)
            await signer.sign(validate_only=True)

            assert record_types(signer.database) == before

    run(scenario())


@pytest.mark.parametrize("then", ["resumed", "rotated out at once"])
def test_what_was_signed_while_a_version_was_suspended_stays_withheld_whatever_comes_then(
    tmp_path: Path, then: str
) -> None:
    async def scenario() -> None:
        gate = asyncio.Event()
        gate.set()
        async with make_signer(tmp_path, token=FakeToken(gate=gate)) as signer:
            await signer.create_key()
            gate.clear()
            waiting = asyncio.create_task(refusal(signer))
            await until(lambda: "sign.authorized" in record_types(signer.database))
            await signer.change(Verb.SUSPEND, 1)
            if then == "resumed":
                await signer.change(Verb.RESUME, 1)
                gate.set()
            else:
                rotating = asyncio.create_task(signer.rotate())
                signer.token.gate = None
                await rotating
                gate.set()

            assert (await waiting).reason is Reason.KEY_NOT_ACTIVE
            assert "sign.completed" not in record_types(signer.database)

    run(scenario())


@pytest.mark.parametrize(
    ("verb", "record"), [(Verb.SUSPEND, "key.suspended"), (Verb.MARK_COMPROMISED, "key.compromised")]
)
def test_a_version_taken_out_of_use_while_the_token_signs_releases_nothing(
    tmp_path: Path, verb: Verb, record: str
) -> None:
    async def scenario() -> None:
        gate = asyncio.Event()
        gate.set()
        async with make_signer(tmp_path, token=FakeToken(gate=gate)) as signer:
            await signer.create_key()
            request_id = fresh_id()
            gate.clear()
            waiting = asyncio.create_task(refusal(signer, request_id=request_id))
            await until(lambda: "sign.authorized" in record_types(signer.database))
            await signer.change(verb, 1)
            gate.set()

            assert (await waiting).reason is Reason.KEY_NOT_ACTIVE
            assert record_types(signer.database)[-3:] == ["sign.authorized", record, "sign.interrupted"]
            assert (await refusal(signer, request_id=request_id)).reason is Reason.KEY_NOT_ACTIVE

            if verb is Verb.SUSPEND:
                await signer.change(Verb.RESUME, 1)
            else:
                await signer.rotate()
            assert (await signer.sign(request_id=request_id)).signature
            assert usage_total(signer.database, "burst") == 1

    run(scenario())


@pytest.mark.parametrize("gives_up", ["by its deadline", "by going away"])
def test_a_caller_that_gives_up_while_the_store_is_busy_takes_its_request_back(tmp_path: Path, gives_up: str) -> None:
    async def scenario() -> None:
        async with make_signer(tmp_path) as signer:
            await signer.create_key()
            before = record_types(signer.database)
            loop = asyncio.get_running_loop()
            deadline_s = loop.time() + 0.05 if gives_up == "by its deadline" else None
            async with signer.store.transaction():
                caller = asyncio.create_task(signer.signing.sign(asked(), deadline_s))
                await until(lambda: len(signer.committer._queue) == 0)
                if deadline_s is None:
                    caller.cancel()
                else:
                    await until(lambda: loop.time() > deadline_s)
            (outcome,) = await asyncio.gather(caller, return_exceptions=True)
            await signer.sign(validate_only=True)

            if deadline_s is not None:
                assert isinstance(outcome, SignerError)
                assert outcome.reason is Reason.DEADLINE_PASSED
            assert record_types(signer.database) == before
            assert usage_total(signer.database, "burst") == 0

    run(scenario())


def test_stopping_answers_what_was_taken_in(tmp_path: Path) -> None:
    async def scenario() -> None:
        gate = asyncio.Event()
        async with make_signer(tmp_path, token=FakeToken(gate=gate)) as signer:
            await signer.create_key()
            waiting = [asyncio.create_task(signer.sign()) for _ in range(3)]
            await asyncio.sleep(0)

            signer.committer.stop()
            late = await refusal(signer)
            gate.set()

            assert late.reason is Reason.SHUTTING_DOWN
            for answer in waiting:
                assert (await answer).signature

    run(scenario())
