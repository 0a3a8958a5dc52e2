"""Finding records and proving them, and following the log, on a store without its edge."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from pathlib import Path

import pytest

from hsmsigner.domain.principal import Principal
from hsmsigner.domain.record import Entry
from hsmsigner.errors import Reason, SignerError
from hsmsigner.operations.log_watch import WATCHERS_OF_A_PRINCIPAL, LogWatch
from hsmsigner.operations.ports import NO_FILTER, LogFilter, LogPage
from tests import naive_tree
from tests.builder import ENGINE, OPERATOR, OTHER_ENGINE, STRANGER, Signer, asked, fresh_id, make_signer
from tests.checkpoints.notes import records
from tests.checkpoints.test_checkpoints import grow
from tests.fakes import FakeToken

NO_SIGN_POLICY = """
version: 1
grants: [{principals: ["spiffe://test/ops/*"], keys: ["**"], rights: [create_key, publish_policy]}]
keys: []
"""


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    async def whole() -> None:
        await scenario()

    asyncio.run(asyncio.wait_for(whole(), 60))


async def reason_of(work: Awaitable[object]) -> Reason:
    with pytest.raises(SignerError) as caught:
        await work
    return caught.value.reason


async def take(pages: AsyncGenerator[LogPage, None], count: int) -> list[int]:
    """Sequence numbers of the next so many records."""
    found: list[int] = []
    while len(found) < count:
        found += [sequence for sequence, _ in (await anext(pages)).records]
    return found


def test_a_refusal_of_somebody_else_under_the_same_id_does_not_hide_a_signature(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with make_signer(tmp_path) as signer:
            await signer.create_key()
            request_id = fresh_id()
            signed = await signer.sign(request_id=request_id)
            for _ in range(3):
                with pytest.raises(SignerError):
                    await signer.sign(principal=STRANGER, request_id=request_id)
            await signer.checkpoints.round(is_forced=True)

            proof = await signer.audit.prove_inclusion(OPERATOR, request_id)

            assert proof.sequence == signed.audit_sequence
            assert json.loads(proof.record)["type"] == "sign.completed"
            leaf = naive_tree.leaf(proof.record)
            at = proof.sequence, proof.checkpoint.size
            assert naive_tree.is_included(leaf, *at, proof.hashes, proof.checkpoint.root_hash)

    run(scenario)


def test_a_flood_of_refusals_under_the_same_id_does_not_hide_a_signature(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with make_signer(tmp_path) as signer:
            await signer.create_key()
            request_id = fresh_id()
            signed = await signer.sign(request_id=request_id)
            fields = {"principal": STRANGER.text, "request_id": request_id, "policy_revision": 1}
            async with signer.store.transaction() as transaction:
                transaction.append([Entry("sign.denied", fields)] * 300, transaction.last_time)
            await signer.checkpoints.round(is_forced=True)

            proof = await signer.audit.prove_inclusion(OPERATOR, request_id)

            assert proof.sequence == signed.audit_sequence

    run(scenario)


def test_a_signature_of_somebody_else_under_the_same_id_does_not_stand_for_the_one_that_is_meant(
    tmp_path: Path,
) -> None:
    async def scenario() -> None:
        async with make_signer(tmp_path) as signer:
            await signer.create_key()
            request_id = fresh_id()
            first = await signer.sign(request_id=request_id)
            second = await signer.sign(principal=OTHER_ENGINE, request_id=request_id)
            await signer.checkpoints.round(is_forced=True)

            with pytest.raises(SignerError) as caught:
                await signer.audit.prove_inclusion(OPERATOR, request_id)

            assert caught.value.reason is Reason.INVALID_FIELD
            assert f"{first.audit_sequence} ({ENGINE.text})" in caught.value.message
            assert f"{second.audit_sequence} ({OTHER_ENGINE.text})" in caught.value.message

    run(scenario)


def test_without_a_signature_the_newest_record_about_the_request_is_proven(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with make_signer(tmp_path) as signer:
            request_id = fresh_id()
            with pytest.raises(SignerError):
                await signer.sign(principal=OTHER_ENGINE, request_id=request_id)
            await signer.checkpoints.round(is_forced=True)

            proof = await signer.audit.prove_inclusion(OPERATOR, request_id)

            assert json.loads(proof.record)["type"] == "sign.denied"

    run(scenario)


def test_a_record_that_no_checkpoint_covers_has_to_wait(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with make_signer(tmp_path) as signer:
            assert await reason_of(signer.audit.checkpoint(OPERATOR)) is Reason.CHECKPOINT_PENDING
            assert await reason_of(signer.audit.prove_inclusion(OPERATOR, 0)) is Reason.CHECKPOINT_PENDING
            assert await reason_of(signer.audit.prove_consistency(OPERATOR, 0)) is Reason.CHECKPOINT_PENDING
            made = await signer.checkpoints.round()
            assert made is not None
            await grow(signer)

            with pytest.raises(SignerError) as caught:
                await signer.audit.prove_inclusion(OPERATOR, made.size)

            assert (caught.value.reason, caught.value.retry_after_s) == (Reason.CHECKPOINT_PENDING, 1.0)
            assert (await signer.audit.prove_inclusion(OPERATOR, made.size - 1)).checkpoint == made
            assert await reason_of(signer.audit.prove_inclusion(OPERATOR, made.size + 1)) is Reason.NOT_IN_LOG
            await signer.checkpoints.round()
            # An older checkpoint does not hold it, and is not made to.
            older = signer.audit.prove_inclusion(OPERATOR, made.size, made.size)
            assert await reason_of(older) is Reason.INVALID_FIELD

    run(scenario)


def test_a_checkpoint_without_its_note_is_shown_to_nobody(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with make_signer(tmp_path, token=FakeToken()) as signer:
            await signer.checkpoints.round()
            await grow(signer)
            signer.token.keys.clear()
            with pytest.raises(SignerError):
                await signer.checkpoints.round()
            size = len(records(signer.database))

            assert len(await signer.audit.checkpoints(OPERATOR, 0, 10)) == 1
            assert await reason_of(signer.audit.checkpoint(OPERATOR, size)) is Reason.CHECKPOINT_PENDING
            assert await reason_of(signer.audit.prove_inclusion(OPERATOR, 0, size)) is Reason.NOT_IN_LOG

    run(scenario)


def test_a_watcher_gets_what_is_there_and_then_each_new_record(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with make_signer(tmp_path) as signer:
            await grow(signer, 600)
            async with aclosing(signer.log_watch.watch(OPERATOR, 0, NO_FILTER)) as pages:
                assert await take(pages, 601) == list(range(601))
                for expected in (601, 602):
                    waiting = asyncio.create_task(take(pages, 1))
                    await grow(signer)
                    assert await waiting == [expected]
            async with aclosing(signer.log_watch.watch(OPERATOR, 602, NO_FILTER)) as pages:
                assert await take(pages, 1) == [602]

    run(scenario)


def test_a_watcher_that_wants_what_is_new_begins_at_the_end(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with make_signer(tmp_path) as signer:
            wanted = LogFilter(types=("test.wanted",))
            async with aclosing(signer.log_watch.watch(OPERATOR, None, wanted)) as pages:
                # It says where it stands before anything fits.
                assert (await anext(pages)).next_sequence == 1
                await grow(signer, 5)
                async with signer.store.transaction() as transaction:
                    transaction.append([Entry("test.wanted", {})], transaction.last_time)
                assert await take(pages, 1) == [6]

    run(scenario)


def test_what_another_process_writes_is_found_too(tmp_path: Path) -> None:
    async def scenario() -> None:
        other = Signer(tmp_path)
        async with make_signer(tmp_path) as signer:
            await other.start()
            async with aclosing(signer.log_watch.watch(OPERATOR, 1, NO_FILTER)) as pages:
                waiting = asyncio.create_task(take(pages, 1))
                await grow(other)
                assert await waiting == [1]
            await other.stop()

    run(scenario)


def test_a_watcher_whose_right_is_taken_away_sees_no_more(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with make_signer(tmp_path) as signer:
            async with aclosing(signer.log_watch.watch(OPERATOR, 0, NO_FILTER)) as pages:
                assert await take(pages, 1) == [0]
                waiting = asyncio.create_task(take(pages, 1))
                await signer.policies.publish(
                    OPERATOR, NO_SIGN_POLICY.encode(), expected_revision=0, comment="test", allow_lockout=False
                )
                assert await reason_of(waiting) is Reason.FORBIDDEN
            assert await reason_of(take(signer.log_watch.watch(OPERATOR, 0, NO_FILTER), 1)) is Reason.FORBIDDEN

    run(scenario)


def test_who_has_seen_more_than_there_is_hears_of_it(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with make_signer(tmp_path) as signer:
            with pytest.raises(SignerError, match="rolled back") as caught:
                await anext(signer.log_watch.watch(OPERATOR, 2, NO_FILTER))

            assert (caught.value.reason, caught.value.metadata) == (Reason.NOT_IN_LOG, {"size": "1"})

    run(scenario)


def test_a_principal_has_so_many_watchers_and_those_who_leave_make_room(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with make_signer(tmp_path) as signer:
            watch: LogWatch = signer.log_watch
            open_ones = [watch.watch(OPERATOR, 0, NO_FILTER) for _ in range(WATCHERS_OF_A_PRINCIPAL)]
            for pages in open_ones:
                await anext(pages)
            assert await reason_of(anext(watch.watch(OPERATOR, 0, NO_FILTER))) is Reason.TOO_MANY_WATCHERS
            await open_ones.pop().aclose()
            await anext(watch.watch(OPERATOR, 0, NO_FILTER))
            for pages in open_ones:
                await pages.aclose()

    run(scenario)


@pytest.mark.parametrize("who", [ENGINE, STRANGER])
def test_nothing_is_read_without_the_right(tmp_path: Path, who: Principal) -> None:
    async def scenario() -> None:
        async with make_signer(tmp_path) as signer:
            audit = signer.audit
            for work in (
                audit.read(who, 0, 1),
                audit.checkpoint(who),
                audit.checkpoints(who, 0, 1),
                audit.prove_inclusion(who, 0),
                audit.prove_consistency(who, 0),
                audit.tile(who, 0, 0),
                audit.status(who),
                anext(signer.log_watch.watch(who, 0, NO_FILTER)),
            ):
                assert await reason_of(work) is Reason.FORBIDDEN
            with pytest.raises(SignerError):
                audit.vkeys(who)

    run(scenario)


def test_the_id_of_a_request_is_asked_for_as_it_was_sent(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with make_signer(tmp_path) as signer:
            await signer.create_key()
            request = asked()
            await signer.signing.sign(request, None)
            await signer.checkpoints.round(is_forced=True)

            proof = await signer.audit.prove_inclusion(OPERATOR, request.request.request_id)

            assert json.loads(proof.record)["request_id"] == request.request.request_id

    run(scenario)
