"""Rotations that are hindered: pairs that cannot be made, versions that were never tried, keys that were suspended."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from hsmsigner.domain.instant import Instant
from hsmsigner.domain.key import KeyName, KeyState
from hsmsigner.domain.lifecycle import Verb
from hsmsigner.domain.principal import Principal
from hsmsigner.errors import Reason, SignerError
from hsmsigner.operations.key_changes import Cause, WantedRotation
from hsmsigner.operations.ports import SignOutcome, SignStatus, SignTask, TokenKeyPair
from tests.builder import OPERATOR, Signer, fresh_id, make_signer, read_log, record_types
from tests.scenarios import refused, run

HOUR = 3_600_000_000
EU = KeyName("settlement-eu")
OTHER_OPERATOR = Principal("spiffe://test/ops/other")


def states(signer: Signer) -> list[KeyState]:
    return [version.state for version in signer.key().versions]


def test_a_pair_that_the_token_refuses_to_make_ends_its_rotation_and_the_next_one_takes_another_cka_id(
    tmp_path: Path,
) -> None:
    async def scenario() -> None:
        async with make_signer(tmp_path) as signer:
            await signer.create_key()
            signer.token.refuse_to_generate = True
            assert await refused(signer.rotate()) is Reason.TOKEN_REFUSED
            assert signer.key().rotation is None
            assert signer.token.reopened == 0
            signer.token.refuse_to_generate = False

            assert (await signer.rotate()).primary_number == 2
            started = [record for record in read_log(signer.database) if record["type"] == "key.rotation_started"]
            assert len({record["cka_id"] for record in started}) == 2

    run(scenario())


def test_a_version_that_the_token_has_not_made_can_be_called_off(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with make_signer(tmp_path) as signer:
            await signer.create_key()
            signer.token.fail_after_generate = True
            assert await refused(signer.rotate("ticket 1")) is Reason.TOKEN_UNAVAILABLE
            signer.token.fail_after_generate = False
            assert await refused(signer.rotate("ticket 2")) is Reason.ROTATION_IN_PROGRESS
            assert len(signer.token.keys) == 2

            version = await signer.change(Verb.DEACTIVATE, 2)

            assert (str(version.name), version.state) == ("keys/settlement-eu/versions/2", KeyState.DEACTIVATED)
            assert (signer.key().rotation, len(signer.key().versions)) == (None, 1)
            # The pair that nobody knew of is not left behind.
            assert list(signer.token.keys) == [signer.key().primary.cka_id]
            ended = read_log(signer.database)[-1]
            assert (ended["type"], ended["principal"], ended["reason"]) == (
                "key.rotation_failed",
                OPERATOR.text,
                "test",
            )
            assert (await signer.rotate("ticket 3")).primary_number == 2

    run(scenario())


def test_a_pair_that_comes_after_its_rotation_was_called_off_is_not_left_on_the_token(tmp_path: Path) -> None:
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
            await asyncio.gather(rotating, return_exceptions=True)

            assert list(signer.token.keys) == [signer.key().primary.cka_id]
            assert len(signer.key().versions) == 1

    run(scenario())


def test_a_token_that_answers_with_failures_is_asked_ever_more_rarely(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with make_signer(tmp_path) as signer:
            await signer.create_key()
            signer.token.fail_with_an_answer = True
            assert await refused(signer.rotate()) is Reason.TOKEN_UNAVAILABLE

            pauses = []
            for _ in range(10):
                await signer.scheduler._keep(EU)
                pauses.append(signer.scheduler._paused[EU][1])

            assert pauses == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300]
            # One that is away is not harmed by being asked, and is wanted as soon as it is back.
            signer.token.fail_with_an_answer, signer.token.fail_before_generate = False, True
            await signer.scheduler._keep(EU)
            assert signer.scheduler._paused[EU][1] == 5

    run(scenario())


def test_of_two_frontends_that_make_the_same_pair_both_are_told_of_success(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with make_signer(tmp_path) as signer:
            await signer.create_key()
            signer.token.fail_before_generate = True
            cause = Cause(OPERATOR, "test", fresh_id())
            lost = signer.rotations.rotate(OPERATOR, EU, WantedRotation(), cause)
            assert await refused(lost) is Reason.TOKEN_UNAVAILABLE
            signer.token.fail_before_generate = False
            other = Signer(tmp_path, clock=signer.clock, token=signer.token)
            await other.start()
            signer.token.generate_gate = asyncio.Event()
            attempts = [
                asyncio.create_task(frontend.rotations.rotate(OPERATOR, EU, WantedRotation(), cause))
                for frontend in (signer, other)
            ]
            while signer.token.reopened < 2:  # noqa: ASYNC110 - both have looked, and are about to generate
                await asyncio.sleep(0)
            signer.token.generate_gate.set()

            keys = await asyncio.gather(*attempts)

            assert [key.primary_number for key in keys] == [2, 2]
            assert len(signer.token.keys) == 2
            await other.stop()

    run(scenario())


def test_a_frontend_whose_token_failed_looks_whether_another_has_made_the_pair(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with make_signer(tmp_path) as signer:
            await signer.create_key()
            other = Signer(tmp_path, clock=signer.clock, token=signer.token)
            await other.start()
            generate = signer.token.generate

            async def made_by_the_other(*arguments: object) -> TokenKeyPair:
                signer.token.generate = generate  # type: ignore[method-assign]
                await other.rotations.advance(EU)
                raise SignerError(Reason.TOKEN_UNAVAILABLE, "no answer")

            signer.token.generate = made_by_the_other  # type: ignore[assignment,method-assign]
            assert (await signer.rotate()).primary_number == 2
            await other.stop()

    run(scenario())


def test_a_new_version_that_cannot_sign_does_not_take_over_from_a_compromised_one_either(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with make_signer(tmp_path) as signer:
            first = (await signer.create_key()).primary.cka_id
            wrong = SignOutcome(SignStatus.WRONG_SIGNATURE, cause="test")
            signer.token.answer = lambda task: None if task.cka_id == first else wrong
            await signer.change(Verb.MARK_COMPROMISED, 1)

            assert await refused(signer.rotate()) is Reason.TOKEN_REFUSED

            assert (signer.key().primary_number, signer.key().rotation) == (1, None)

    run(scenario())


def test_the_trial_of_a_new_version_is_recorded_before_it_signs_and_the_old_one_stays_out_of_it(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with make_signer(tmp_path) as signer:
            await signer.create_key()
            await signer.change(Verb.MARK_COMPROMISED, 1)
            recorded: list[list[str]] = []

            def watch(_task: SignTask) -> None:
                recorded.append(record_types(signer.database))

            signer.token.answer = watch
            assert (await signer.rotate()).primary_number == 2

            assert [task.cka_id for task in signer.token.signed] == [signer.key().primary.cka_id]
            assert [types[-1] for types in recorded] == ["key.trial_authorized"]
            assert record_types(signer.database)[-2:] == ["key.continuity_missing", "key.activated"]

    run(scenario())


@pytest.mark.parametrize("outcome", [SignStatus.UNKNOWN, SignStatus.NOT_CALLED])
def test_a_new_version_takes_over_only_when_it_was_seen_to_sign(tmp_path: Path, outcome: SignStatus) -> None:
    async def scenario() -> None:
        async with make_signer(tmp_path) as signer:
            first = (await signer.create_key()).primary.cka_id
            refusal, silence = SignOutcome(SignStatus.REFUSED, cause="test"), SignOutcome(outcome, cause="test")
            signer.token.answer = lambda task: refusal if task.cka_id == first else silence

            assert await refused(signer.rotate()) is Reason.TOKEN_UNAVAILABLE
            assert signer.key().primary_number == 1

            signer.token.answer = lambda task: refusal if task.cka_id == first else None
            await signer.look_after()
            assert signer.key().primary_number == 2

    run(scenario())


def test_an_operator_who_activates_the_next_version_of_a_suspended_key_has_it_activated_in_his_name(
    tmp_path: Path,
) -> None:
    async def scenario() -> None:
        async with make_signer(tmp_path) as signer:
            await signer.create_key()
            await signer.set_policy(rotation_period_us=24 * HOUR, publish_lead_us=HOUR)
            signer.clock.advance(23 * 3600)
            await signer.look_after()
            await signer.change(Verb.SUSPEND, 1)
            signer.clock.advance(2 * 3600)
            await signer.look_after()
            assert signer.key().primary_number == 1

            await signer.change(Verb.ACTIVATE, 2)

            assert (signer.key().primary_number, signer.key().primary.state) == (2, KeyState.ACTIVE)
            by_type = {str(record["type"]): record for record in read_log(signer.database)}
            for kind in ("key.activation_ordered", "key.activated"):
                assert (by_type[kind]["principal"], by_type[kind]["reason"]) == (OPERATOR.text, "test")

    run(scenario())


def test_a_rotation_by_command_does_not_revive_a_key_that_was_suspended_in_between(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with make_signer(tmp_path) as signer:
            await signer.create_key()
            cause = Cause(OPERATOR, "test", fresh_id())
            later = WantedRotation(activate_time=Instant(signer.clock.now + HOUR))
            await signer.rotations.rotate(OPERATOR, EU, later, cause)
            await signer.change(Verb.SUSPEND, 1)
            signer.clock.advance(3600)

            await signer.look_after()
            # Nor does the command that was given before the suspension, sent again.
            await signer.rotations.rotate(OPERATOR, EU, later, cause)
            assert states(signer) == [KeyState.SUSPENDED, KeyState.PRE_ACTIVATION]
            assert await refused(signer.sign()) is Reason.KEY_NOT_ACTIVE

            await signer.change(Verb.RESUME, 1)
            await signer.look_after()
            assert (signer.key().primary_number, signer.key().primary.state) == (2, KeyState.ACTIVE)

    run(scenario())


def test_a_key_that_is_suspended_at_the_moment_of_taking_over_stays_suspended(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with make_signer(tmp_path) as signer:
            await signer.create_key()
            sign = signer.token.sign

            async def suspended_meanwhile(tasks: list[SignTask]) -> list[SignOutcome]:
                outcomes = await sign(tasks)
                if signer.key().primary.state is KeyState.ACTIVE:
                    await signer.change(Verb.SUSPEND, 1)
                return outcomes

            signer.token.sign = suspended_meanwhile  # type: ignore[assignment,method-assign]
            await signer.rotate()

            assert states(signer) == [KeyState.SUSPENDED, KeyState.PRE_ACTIVATION]

    run(scenario())


def test_a_suspended_key_is_rotated_by_who_orders_it_now(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with make_signer(tmp_path) as signer:
            await signer.create_key()
            await signer.change(Verb.SUSPEND, 1)

            assert (await signer.rotate()).primary.state is KeyState.ACTIVE
            assert signer.key().primary_number == 2

    run(scenario())


def test_the_command_that_began_a_rotation_begins_no_other_after_somebody_else_let_it_take_over(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with make_signer(tmp_path) as signer:
            await signer.create_key()
            cause = Cause(OTHER_OPERATOR, "test", fresh_id())
            later = WantedRotation(activate_time=Instant(signer.clock.now + HOUR))
            await signer.rotations.rotate(OTHER_OPERATOR, EU, later, cause)
            await signer.change(Verb.ACTIVATE, 2)

            key = await signer.rotations.rotate(OTHER_OPERATOR, EU, later, cause)

            assert (key.primary_number, len(key.versions), key.rotation) == (2, 2, None)
            activated = [record for record in read_log(signer.database) if record["type"] == "key.activated"]
            assert [record["principal"] for record in activated] == [OPERATOR.text]

    run(scenario())
