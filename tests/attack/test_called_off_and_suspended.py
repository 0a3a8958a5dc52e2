"""The life of keys under attack: what was called off, suspended, or seen only now and then."""

from __future__ import annotations

import asyncio
from pathlib import Path

from hsmsigner.domain.instant import Instant
from hsmsigner.domain.key import CkaId, KeyName, KeyState
from hsmsigner.domain.lifecycle import Verb
from hsmsigner.errors import Reason, SignerError
from hsmsigner.operations.grace import DestructionGrace
from hsmsigner.operations.ports import SignOutcome, SignStatus, TokenKeyPair
from hsmsigner.operations.unwanted import discard_all
from tests.builder import Signer, make_signer, record_types
from tests.scenarios import refused, run

HOUR = 3_600_000_000
EU = KeyName("settlement-eu")


def test_a_version_planned_while_the_key_was_suspended_is_vouched_for_once_it_is_resumed(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with make_signer(tmp_path) as signer:
            await signer.create_key()
            await signer.change(Verb.SUSPEND, 1)
            await signer.rotate(activate_time=Instant(signer.clock.now + HOUR))
            await signer.change(Verb.RESUME, 1)
            signer.clock.advance(3601)
            await signer.look_after()

            assert signer.key().primary_number == 2
            async with signer.store.transaction() as transaction:
                assert len(transaction.continuity.list(EU, 0, 10)) == 1
            assert "key.continuity_missing" not in record_types(signer.database)

    run(scenario())


def test_who_ordered_a_rotation_that_was_called_off_meanwhile_is_not_told_of_success(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with make_signer(tmp_path) as signer:
            await signer.create_key()
            generate, is_asked, go_on = signer.token.generate, asyncio.Event(), asyncio.Event()

            async def slowly(*arguments: object) -> TokenKeyPair:
                is_asked.set()
                await go_on.wait()
                return await generate(*arguments)  # type: ignore[arg-type]

            signer.token.generate = slowly  # type: ignore[assignment,method-assign]
            rotating = asyncio.create_task(signer.rotate())
            await is_asked.wait()
            await signer.change(Verb.DEACTIVATE, 2)
            go_on.set()

            assert await refused(rotating) is Reason.WRONG_STATE

    run(scenario())


def test_who_activates_a_version_that_is_taken_away_meanwhile_is_not_told_of_success(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with make_signer(tmp_path) as signer:
            await signer.create_key()
            await signer.rotate(activate_time=Instant(signer.clock.now + HOUR))
            signer.token.gate = asyncio.Event()
            activating = asyncio.create_task(signer.change(Verb.ACTIVATE, 2))
            while record_types(signer.database)[-1] != "key.continuity_authorized":  # noqa: ASYNC110 - no event says so
                await asyncio.sleep(0.01)
            await signer.change(Verb.DEACTIVATE, 2)
            signer.token.gate.set()

            assert await refused(activating) is Reason.WRONG_STATE

    run(scenario())


def test_a_new_version_whose_cka_id_got_a_second_owner_ends_its_rotation(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with make_signer(tmp_path) as signer:
            first = (await signer.create_key()).primary.cka_id
            find = signer.token.find

            async def ambiguous(cka_id: CkaId, *arguments: object, **options: object) -> TokenKeyPair | None:
                if cka_id != first:
                    raise SignerError(Reason.TOKEN_REFUSED, "several objects of one class have that CKA_ID")
                return await find(cka_id, *arguments, **options)  # type: ignore[arg-type]

            signer.token.find = ambiguous  # type: ignore[method-assign]
            signer.token.answer = lambda task: (
                None if task.cka_id == first else SignOutcome(SignStatus.NOT_CALLED, cause="test")
            )

            assert await refused(signer.rotate()) is Reason.TOKEN_REFUSED
            assert (signer.key().rotation, signer.key().versions[1].state) == (None, KeyState.DEACTIVATED)

    run(scenario())


def test_what_nobody_watched_for_a_while_has_not_been_due_without_a_break(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with make_signer(tmp_path) as signer:
            await signer.create_key()
            await signer.rotate()
            await signer.change(Verb.SCHEDULE_DESTROY, 1, delay_us=24 * HOUR)
            tick, year_s = 0.0, 365 * 24 * 3600.0
            signer.scheduler = signer.make_scheduler("ours", DestructionGrace(3600, lambda: tick))
            other = signer.make_scheduler("other")

            # The clock jumps, and is set right as the other frontend becomes scheduler; much later it jumps again.
            signer.clock.advance(year_s)
            await signer.look_after()
            signer.clock.advance(-year_s)
            assert await other.round()
            tick += 7 * 24 * 3600
            signer.clock.advance(year_s)
            await signer.look_after()

            assert signer.key().versions[0].state is KeyState.DESTROY_SCHEDULED

    run(scenario())


def test_a_pair_whose_rotation_was_called_off_while_the_token_was_away_does_not_stay_on_it(tmp_path: Path) -> None:
    async def scenario() -> None:
        signer = Signer(tmp_path)
        await signer.start()
        await signer.create_key()
        signer.token.fail_after_generate = True
        assert await refused(signer.rotate()) is Reason.TOKEN_UNAVAILABLE
        signer.token.connected = False
        await signer.change(Verb.DEACTIVATE, 2)
        assert len(signer.token.keys) == 2
        await signer.die()

        signer.token.connected, signer.token.fail_after_generate = True, False
        again = Signer(tmp_path, clock=signer.clock, token=signer.token)
        await again.start()
        await discard_all(again.store, again.token, again.governance, again.clock)

        assert list(signer.token.keys) == [again.key().primary.cka_id]
        assert (await again.rotate()).primary_number == 2
        await again.stop()

    run(scenario())
