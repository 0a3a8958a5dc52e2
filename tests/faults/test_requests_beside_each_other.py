"""Requests beside each other: twins, batches, full quotas and queues, and what time does to results."""

from __future__ import annotations

import asyncio
from pathlib import Path

from hsmsigner.errors import Reason, SignerError
from hsmsigner.operations.committer import CommitterLimits
from hsmsigner.operations.jobs import Signed
from hsmsigner.operations.ports import SignOutcome, SignStatus
from tests.builder import (
    OTHER_ENGINE,
    STRANGER,
    asked,
    fresh_id,
    make_signer,
    record_types,
    usage_total,
)
from tests.scenarios import refusal, run


def test_a_refusal_in_the_same_turn_does_not_abort_somebody_elses_batch(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with make_signer(tmp_path) as signer:
            await signer.create_key()

            stranger, batch = await asyncio.gather(
                signer.signing.sign_batch([asked(principal=STRANGER)], None, all_or_nothing=False),
                signer.signing.sign_batch([asked() for _ in range(3)], None, all_or_nothing=True),
            )

            assert isinstance(stranger[0], SignerError)
            assert all(isinstance(answer, Signed) for answer in batch)

    run(scenario())


def test_concurrent_twins_wait_for_one_signature(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with make_signer(tmp_path) as signer:
            await signer.create_key()
            request_id = fresh_id()

            answers = await asyncio.gather(*(signer.sign(request_id=request_id) for _ in range(20)))

            assert len({answer.signature for answer in answers}) == 1
            assert len(signer.token.signed) == 1
            assert usage_total(signer.database, "burst") == 1

    run(scenario())


def test_the_same_request_id_with_another_body_is_refused(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with make_signer(tmp_path) as signer:
            await signer.create_key()
            request_id = fresh_id()
            await signer.sign(b"pay 1", request_id=request_id)

            error = await refusal(signer, message=b"pay 2", request_id=request_id)

            assert error.reason is Reason.REQUEST_ID_REUSED
            assert len(signer.token.signed) == 1

    run(scenario())


def test_the_same_request_id_of_another_principal_is_another_request(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with make_signer(tmp_path) as signer:
            await signer.create_key()
            request_id = fresh_id()
            mine = await signer.sign(request_id=request_id)

            theirs = await signer.sign(request_id=request_id, principal=OTHER_ENGINE)

            assert mine.signature != theirs.signature

    run(scenario())


def test_a_full_quota_refuses_with_rule_observed_limit_and_retry(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with make_signer(tmp_path) as signer:
            await signer.create_key()
            answers = await asyncio.gather(*(signer.sign() for _ in range(8)), return_exceptions=True)

            refused = [answer for answer in answers if isinstance(answer, SignerError)]

            assert len(refused) == 3
            assert all(isinstance(answer, Signed | SignerError) for answer in answers)
            assert refused[0].metadata == {"rule": "quotas/burst", "observed": "5", "limit": "5"}
            assert refused[0].retry_after_s is not None
            signer.clock.advance(refused[0].retry_after_s)
            assert (await signer.sign()).signature

    run(scenario())


def test_an_all_or_nothing_batch_that_does_not_fit_signs_and_counts_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with make_signer(tmp_path) as signer:
            await signer.create_key()

            answers = await signer.signing.sign_batch([asked() for _ in range(6)], None, all_or_nothing=True)

            reasons = [answer.reason for answer in answers if isinstance(answer, SignerError)]
            assert reasons == [Reason.BATCH_ABORTED] * 5 + [Reason.QUOTA_EXCEEDED]
            assert usage_total(signer.database, "burst") == 0
            assert signer.token.signed == []
            fitting = await signer.signing.sign_batch([asked() for _ in range(5)], None, all_or_nothing=True)
            assert all(isinstance(answer, Signed) for answer in fitting)

    run(scenario())


def test_validate_only_decides_and_leaves_no_trace(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with make_signer(tmp_path) as signer:
            await signer.create_key()
            before = record_types(signer.database)

            allowed = await signer.sign(validate_only=True)
            error = await refusal(signer, validate_only=True, principal=STRANGER)

            assert allowed.signature == b""
            assert error.reason is Reason.KEY_NOT_FOUND_OR_FORBIDDEN
            assert record_types(signer.database) == before
            assert usage_total(signer.database, "burst") == 0

    run(scenario())


def test_a_full_queue_refuses_at_once(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with make_signer(
            tmp_path, limits=CommitterLimits(queue=2, queue_bytes=2**20, retention_s=86_400)
        ) as signer:
            await signer.create_key()

            tasks = [asyncio.create_task(signer.sign()) for _ in range(3)]
            first, second, third = await asyncio.gather(*tasks, return_exceptions=True)

            assert isinstance(third, SignerError)
            assert third.reason is Reason.QUEUE_FULL
            assert third.retry_after_s is not None
            assert isinstance(first, Signed)
            assert isinstance(second, Signed)

    run(scenario())


def test_a_result_is_forgotten_after_its_time_and_the_id_is_fresh_again(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with make_signer(tmp_path) as signer:
            await signer.create_key()
            request_id = fresh_id()
            first = await signer.sign(request_id=request_id)
            signer.clock.advance(2 * 86_400)
            await signer.die()
            await signer.start()
            await signer.sign()

            again = await signer.sign(request_id=request_id)

            assert again.signature != first.signature

    run(scenario())


def test_an_interrupted_request_is_kept_from_its_answer_on_and_no_longer_than_its_time(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with make_signer(tmp_path) as signer:
            await signer.create_key()
            early, late = fresh_id(), fresh_id()
            signer.token.answer = lambda _task: SignOutcome(SignStatus.UNKNOWN)
            for request_id in (early, late):
                await refusal(signer, request_id=request_id)
            signer.token.answer = lambda _task: None

            signer.clock.advance(86_400 - 5)
            first = await signer.sign(request_id=early)
            signer.clock.advance(10)
            assert (await signer.sign(request_id=early)).signature == first.signature
            assert usage_total(signer.database, "day") == 2
            # Its time is over, though nobody swept it away: what it was debited counts no more, so it is debited anew.
            await signer.sign(b"another body", request_id=late)
            assert usage_total(signer.database, "burst") == 1

    run(scenario())


def test_time_never_runs_backwards_in_the_log_and_a_clock_set_back_frees_no_quota(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with make_signer(tmp_path) as signer:
            await signer.create_key()
            for _ in range(5):
                await signer.sign()

            signer.clock.advance(-3600)

            assert (await refusal(signer)).reason is Reason.QUOTA_EXCEEDED

    run(scenario())


def test_the_request_of_a_refunded_debit_is_a_new_request(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with make_signer(tmp_path) as signer:
            await signer.create_key()
            request_id = fresh_id()
            signer.token.answer = lambda _task: SignOutcome(SignStatus.NOT_CALLED)
            await refusal(signer, request_id=request_id)
            signer.token.answer = lambda _task: None

            answer = await signer.sign(b"another body", request_id=request_id)

            assert answer.signature
            assert usage_total(signer.database, "burst") == 1

    run(scenario())
