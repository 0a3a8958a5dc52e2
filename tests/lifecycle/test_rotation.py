"""Rotating by command: published, vouched for, then primary; who may, who comes too late, and what is refused."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

from hsmsigner.domain.instant import Instant, format_instant
from hsmsigner.domain.key import CkaId, KeyName, KeyOrigin, KeyState, VersionName
from hsmsigner.domain.lifecycle import Verb
from hsmsigner.domain.principal import Principal
from hsmsigner.domain.public_key import to_pem
from hsmsigner.errors import Reason, SignerError
from hsmsigner.operations.adoption import WantedAdoption
from hsmsigner.operations.key_changes import Cause, WantedRotation
from hsmsigner.operations.ports import SignOutcome, SignStatus
from hsmsigner.operations.reconcile import compare_with_token
from hsmsigner.verifier.continuity import verify_continuity
from tests.builder import (
    ENGINE,
    OPERATOR,
    POLICY,
    Signer,
    asked,
    fresh_id,
    make_signer,
    read_log,
    record_types,
    usage_total,
)
from tests.fakes import FakeToken
from tests.scenarios import refused, run

SECOND = 1_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
EU = KeyName("settlement-eu")
OLD, NEW = "keys/settlement-eu/versions/1", "keys/settlement-eu/versions/2"


def states(signer: Signer) -> list[KeyState]:
    return [version.state for version in signer.key().versions]


def test_a_rotation_makes_publishes_vouches_and_takes_over_in_that_order(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with make_signer(tmp_path) as signer:
            await signer.create_key()

            key = await signer.rotate("half a year is over", overlap_us=HOUR)

            assert (key.primary_number, states(signer)) == (2, [KeyState.ACTIVE, KeyState.ACTIVE])
            assert key.versions[0].deactivate_time == signer.clock.now + HOUR
            assert record_types(signer.database)[-5:] == [
                "key.rotation_started",
                "key.version_created",
                "key.continuity_authorized",
                "key.continuity",
                "key.activated",
            ]
            records = read_log(signer.database)[-5:]
            assert {record["reason"] for record in records} == {"half a year is over"}
            assert {record["principal"] for record in records} == {OPERATOR.text}
            assert str((await signer.sign()).version.name) == NEW
            assert str((await signer.sign(name=OLD)).version.name) == OLD
            # Nothing was looked for in vain: that would have interrupted signing.
            assert signer.token.reopened == 0

    run(scenario())


def test_the_overlap_ends_on_time_even_if_the_scheduler_is_late(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with make_signer(tmp_path) as signer:
            await signer.create_key()
            await signer.rotate(overlap_us=MINUTE)
            await signer.sign(name=OLD)
            signer.clock.advance(60)

            assert await refused(signer.sign(name=OLD)) is Reason.KEY_NOT_ACTIVE
            assert states(signer) == [KeyState.ACTIVE, KeyState.ACTIVE]
            await signer.look_after()
            assert states(signer) == [KeyState.DEACTIVATED, KeyState.ACTIVE]
            assert await refused(signer.sign(name=OLD)) is Reason.KEY_NOT_ACTIVE
            await signer.sign()

    run(scenario())


def test_a_version_that_waits_for_its_time_is_published_and_never_signs(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with make_signer(tmp_path) as signer:
            await signer.create_key()
            key = await signer.rotate(activate_time=Instant(signer.clock.now + HOUR))

            assert (key.primary_number, states(signer)) == (1, [KeyState.ACTIVE, KeyState.PRE_ACTIVATION])
            assert await refused(signer.sign(name=NEW)) is Reason.KEY_NOT_ACTIVE
            signer.clock.advance(3601)
            assert await refused(signer.sign(name=NEW)) is Reason.KEY_NOT_ACTIVE
            assert str((await signer.sign()).version.name) == OLD
            await signer.look_after()
            assert (signer.key().primary_number, states(signer)) == (2, [KeyState.DEACTIVATED, KeyState.ACTIVE])

    run(scenario())


def test_bad_orders_are_refused_by_name_and_change_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with make_signer(tmp_path) as signer:
            await signer.create_key()
            await signer.set_policy(rotation_period_us=HOUR)
            await signer.rotate()
            await signer.rotate(activate_time=Instant(signer.clock.now + HOUR))
            await signer.change(Verb.SCHEDULE_DESTROY, 1)
            await signer.change(Verb.DESTROY, 1)
            before, log = signer.key(), read_log(signer.database)
            past = Instant(signer.clock.now - 1)

            orders = [
                (signer.rotate(), Reason.ROTATION_IN_PROGRESS),
                (signer.change(Verb.ACTIVATE, 1), Reason.WRONG_STATE),
                (signer.change(Verb.RESTORE, 1), Reason.WRONG_STATE),
                (signer.change(Verb.MARK_COMPROMISED, 1), Reason.WRONG_STATE),
                (signer.change(Verb.DEACTIVATE, 2), Reason.WRONG_STATE),
                (signer.change(Verb.SCHEDULE_DESTROY, 2), Reason.WRONG_STATE),
                (signer.change(Verb.DESTROY, 2), Reason.WRONG_STATE),
                (signer.change(Verb.SUSPEND, 3), Reason.WRONG_STATE),
                (signer.change(Verb.SUSPEND, 4), Reason.KEY_NOT_FOUND_OR_FORBIDDEN),
                (signer.change(Verb.SCHEDULE_DESTROY, 3, delay_us=1), Reason.INVALID_FIELD),
                (signer.change(Verb.SUSPEND, 2, etag="v99"), Reason.ETAG_MISMATCH),
                (signer.set_policy(rotation_period_us=HOUR, overlap_us=HOUR), Reason.INVALID_FIELD),
                (signer.set_policy(rotation_period_us=HOUR, publish_lead_us=2 * HOUR), Reason.INVALID_FIELD),
                (signer.set_policy(rotation_period_us=SECOND), Reason.INVALID_FIELD),
                (signer.rotate(""), Reason.INVALID_FIELD),
            ]
            for order, reason in orders:
                assert await refused(order) is reason
            await signer.change(Verb.DEACTIVATE, 3)
            calm = signer.key()
            for order, reason in (
                (signer.rotate(activate_time=past), Reason.INVALID_FIELD),
                (signer.rotate(overlap_us=HOUR), Reason.INVALID_FIELD),
                (signer.rotate(overlap_us=-1), Reason.INVALID_FIELD),
                (signer.rotate(etag=before.etag), Reason.ETAG_MISMATCH),
            ):
                assert await refused(order) is reason
            assert signer.key() == calm
            assert read_log(signer.database)[: len(log)] == log
            assert len(read_log(signer.database)) == len(log) + 1

    run(scenario())


def test_of_two_operators_at_once_one_wins_and_the_other_learns_why(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with make_signer(tmp_path) as signer:
            key = await signer.create_key()
            answers = await asyncio.gather(*(signer.rotate(etag=key.etag) for _ in range(2)), return_exceptions=True)
            assert [type(answer).__name__ for answer in answers].count("Key") == 1
            assert [answer.reason for answer in answers if isinstance(answer, SignerError)] == [Reason.ETAG_MISMATCH]

            etag = signer.key().primary.etag
            changes = await asyncio.gather(
                signer.change(Verb.SUSPEND, 2, etag=etag),
                signer.change(Verb.MARK_COMPROMISED, 2, etag=etag),
                return_exceptions=True,
            )
            assert [answer.reason for answer in changes if isinstance(answer, SignerError)] == [Reason.ETAG_MISMATCH]
            without = await asyncio.gather(
                signer.change(Verb.RESUME, 2), signer.change(Verb.RESUME, 2), return_exceptions=True
            )
            assert [answer.reason for answer in without if isinstance(answer, SignerError)] == [Reason.WRONG_STATE]

    run(scenario())


def test_the_same_request_goes_on_with_its_rotation_and_is_answered_after_it(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with make_signer(tmp_path) as signer:
            await signer.create_key()
            cause = Cause(OPERATOR, "test", fresh_id())
            signer.token.fail_after_generate = True
            lost = signer.rotations.rotate(OPERATOR, EU, WantedRotation(), cause)
            assert await refused(lost) is Reason.TOKEN_UNAVAILABLE
            signer.token.fail_after_generate = False

            key = await signer.rotations.rotate(OPERATOR, EU, WantedRotation(), cause)
            again = await signer.rotations.rotate(OPERATOR, EU, WantedRotation(), cause)

            assert (key.primary_number, again) == (2, key)
            assert len(signer.token.keys) == 2

    run(scenario())


def test_a_rotation_that_was_called_off_says_so_to_its_request(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with make_signer(tmp_path) as signer:
            await signer.create_key()
            cause = Cause(OPERATOR, "test", fresh_id())
            later = WantedRotation(activate_time=Instant(signer.clock.now + HOUR))
            await signer.rotations.rotate(OPERATOR, EU, later, cause)
            await signer.change(Verb.DEACTIVATE, 2)

            assert await refused(signer.rotations.rotate(OPERATOR, EU, later, cause)) is Reason.WRONG_STATE
            assert (await signer.rotate()).primary_number == 3

    run(scenario())


def test_rights_are_separate(tmp_path: Path) -> None:
    async def scenario() -> None:
        only = {
            right: Principal(f"spiffe://test/{right}/x") for right in ("rotate", "manage_key", "create_key", "sign")
        }
        grants = "".join(
            f'  - {{principals: ["spiffe://test/{right}/*"], keys: ["**"], rights: [{right}]}}\n' for right in only
        )
        async with make_signer(tmp_path, policy=POLICY.replace("keys:\n", grants + "keys:\n", 1)) as signer:
            await signer.create_key()
            no = Reason.KEY_NOT_FOUND_OR_FORBIDDEN
            for right, who in only.items():
                if right != "rotate":
                    assert await refused(signer.rotate(principal=who)) is no
                if right != "sign":
                    assert await refused(signer.sign(principal=who)) is no
                if right != "manage_key":
                    cause, name = Cause(who, "test"), VersionName(EU, 1)
                    assert await refused(signer.lifecycle.change(Verb.SUSPEND, who, name, cause)) is no
                    adoption = WantedAdoption(signer.key().algorithm, CkaId(b"x"))
                    assert await refused(signer.adoption.adopt(who, EU, adoption, cause)) is no
                if right != "create_key":
                    made = signer.keys.create(who, KeyName("x"), signer.key().algorithm, fresh_id())
                    assert await refused(made) is no
            assert (await signer.rotate(principal=only["rotate"])).primary_number == 2
            assert await refused(signer.rotate(principal=ENGINE)) is no
            assert await refused(signer.sign(principal=OPERATOR)) is no

    run(scenario())


def test_a_quota_follows_the_key_through_a_rotation(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with make_signer(tmp_path) as signer:
            await signer.create_key()
            for _ in range(3):
                await signer.sign()
            await signer.rotate(overlap_us=HOUR)
            await signer.sign()
            await signer.sign(name=OLD)

            assert await refused(signer.sign()) is Reason.QUOTA_EXCEEDED
            assert await refused(signer.sign(name=OLD)) is Reason.QUOTA_EXCEEDED
            assert usage_total(signer.database, "burst") == 5

    run(scenario())


def test_a_quota_per_version_begins_anew_with_each_version(tmp_path: Path) -> None:
    async def scenario() -> None:
        policy = POLICY.replace("per: 10s, by: [principal]", "per: 10s, per_version: true")
        async with make_signer(tmp_path, policy=policy) as signer:
            await signer.create_key()
            for _ in range(5):
                await signer.sign()
            assert await refused(signer.sign()) is Reason.QUOTA_EXCEEDED
            await signer.rotate(overlap_us=HOUR)

            for _ in range(5):
                await signer.sign()
            assert await refused(signer.sign()) is Reason.QUOTA_EXCEEDED
            assert await refused(signer.sign(name=OLD)) is Reason.QUOTA_EXCEEDED

    run(scenario())


def test_a_request_that_a_new_version_resumes_counts_for_what_that_version_may_sign(tmp_path: Path) -> None:
    async def scenario() -> None:
        policy = POLICY.replace("per: 10s, by: [principal]", "per: 10s, per_version: true")
        async with make_signer(tmp_path, policy=policy) as signer:
            await signer.create_key()
            signer.token.answer = lambda _task: SignOutcome(SignStatus.UNKNOWN)
            interrupted = [fresh_id() for _ in range(3)]
            for request_id in interrupted:
                assert await refused(signer.sign(request_id=request_id)) is Reason.SIGNATURE_INTERRUPTED
            signer.token.answer = lambda _task: None
            await signer.rotate(overlap_us=HOUR)
            for _ in range(3):
                await signer.sign()

            for request_id in interrupted[:2]:
                await signer.sign(request_id=request_id)
            assert await refused(signer.sign(request_id=interrupted[2])) is Reason.QUOTA_EXCEEDED
            assert usage_total(signer.database, "burst") == 3 + 5
            assert usage_total(signer.database, "day") == 6

    run(scenario())


def test_a_key_that_cannot_vouch_for_its_successor_does_not_stop_an_emergency(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with make_signer(tmp_path) as signer:
            await signer.create_key()
            await signer.change(Verb.MARK_COMPROMISED, 1)
            assert (await signer.rotate("key leaked")).primary_number == 2
            assert signer.key().versions[0].state is KeyState.COMPROMISED

            del signer.token.keys[signer.key().primary.cka_id]
            assert (await signer.rotate("key lost")).primary_number == 3
            obstacles = [record["obstacle"] for record in read_log(signer.database) if "obstacle" in record]
            assert obstacles == ["the old version is COMPROMISED", "the token does not have the old version"]
            await signer.sign()

    run(scenario())


def test_a_new_version_that_cannot_sign_never_takes_over(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with make_signer(tmp_path) as signer:
            await signer.create_key()
            first = signer.key().primary.cka_id
            wrong = SignOutcome(SignStatus.WRONG_SIGNATURE, cause="test")
            signer.token.answer = lambda task: None if task.cka_id == first else wrong

            assert await refused(signer.rotate()) is Reason.TOKEN_REFUSED
            assert (signer.key().primary_number, states(signer)) == (1, [KeyState.ACTIVE, KeyState.DEACTIVATED])
            await signer.sign()
            signer.token.answer = lambda _task: None
            assert (await signer.rotate()).primary_number == 3

    run(scenario())


def test_an_adopted_pair_becomes_a_version_that_says_so_and_can_take_over(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with make_signer(tmp_path) as signer:
            key = await signer.create_key()
            made, open_one = CkaId(b"ceremony-1"), CkaId(b"ceremony-2")
            for cka_id in (made, open_one):
                await signer.token.generate(cka_id, "", key.algorithm)
            signer.token.unprotected.add(open_one)

            async def adopt(cka_id: CkaId, name: KeyName = EU, *, allow: bool = False) -> object:
                cause = Cause(OPERATOR, "ceremony of May", fresh_id())
                return await signer.adoption.adopt(OPERATOR, name, WantedAdoption(key.algorithm, cka_id, allow), cause)

            await adopt(made)
            assert await adopt(made) == signer.key().versions[1]
            assert await refused(adopt(made, KeyName("settlement-us"))) is Reason.KEY_EXISTS
            assert await refused(adopt(CkaId(b"nothing"))) is Reason.KEY_NOT_ON_TOKEN
            assert await refused(adopt(open_one)) is Reason.KEY_NOT_PROTECTED
            assert await refused(signer.sign(name=NEW)) is Reason.KEY_NOT_ACTIVE
            await signer.change(Verb.ACTIVATE, 2)
            assert (await signer.sign()).version.origin is KeyOrigin.ADOPTED
            assert "key.continuity" in record_types(signer.database)
            await adopt(open_one, KeyName("settlement-us"), allow=True)
            answer = await signer.signing.sign(asked(name="keys/settlement-us"), None)
            assert (answer.version.origin, answer.version.is_protected) == (KeyOrigin.ADOPTED, False)
            assert signer.token.reopened == 0

    run(scenario())


def test_a_missing_pair_is_reported_once_and_its_record_stays(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with make_signer(tmp_path) as signer:
            key = await signer.create_key()
            taken = {key.primary.cka_id: signer.token.keys.pop(key.primary.cka_id)}

            async def compare() -> int:
                return len(await compare_with_token(signer.store, signer.token, signer.governance, signer.clock))

            assert (await compare(), await compare()) == (1, 1)
            assert record_types(signer.database).count("key.missing_on_token") == 1
            assert signer.key().primary.missing_time == signer.clock.now
            signer.token.keys |= taken
            assert await compare() == 0
            assert record_types(signer.database)[-1] == "key.found_on_token"

    run(scenario())


def test_a_destruction_that_the_token_did_not_answer_is_finished_by_the_scheduler(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with make_signer(tmp_path) as signer:
            await signer.create_key()
            await signer.rotate()
            await signer.change(Verb.SCHEDULE_DESTROY, 1)
            signer.token.connected = False
            assert await refused(signer.change(Verb.DESTROY, 1)) is Reason.TOKEN_UNAVAILABLE
            assert await refused(signer.change(Verb.RESTORE, 1)) is Reason.WRONG_STATE
            signer.token.connected = True

            await signer.look_after()

            assert states(signer) == [KeyState.DESTROYED, KeyState.ACTIVE]
            assert len(signer.token.keys) == 1

    run(scenario())


def test_signatures_are_counted_per_version(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with make_signer(tmp_path) as signer:
            await signer.create_key()
            await asyncio.gather(*(signer.sign() for _ in range(3)))
            await signer.rotate(overlap_us=HOUR)
            await signer.sign()
            key = await signer.keys.get_counted(OPERATOR, EU)
            assert [version.signature_count for version in key.versions] == [3, 1]

    run(scenario())


def test_a_statement_links_old_and_new_and_only_a_rotation_can_make_one(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with make_signer(tmp_path) as signer:
            await signer.create_key()
            await signer.rotate()
            await signer.rotate()
            async with signer.store.transaction() as transaction:
                found = transaction.continuity.list(EU, 0, 10)
            assert [(one.old_version.number, one.new_version.number) for one in found] == [(1, 2), (2, 3)]
            assert all(one.signed_by_old.count(".") == 2 for one in found)
            assert json.dumps(found[0].signed_by_old) != json.dumps(found[0].signed_by_new)

    run(scenario())


def test_a_lost_token_holds_a_rotation_up_and_harms_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        token = FakeToken(fail_before_generate=True)
        token.fail_before_generate = False
        async with make_signer(tmp_path, token=token) as signer:
            await signer.create_key()
            token.fail_before_generate = True
            assert await refused(signer.rotate()) is Reason.TOKEN_UNAVAILABLE
            await signer.look_after()
            assert signer.key().primary_number == 1
            await signer.sign()
            token.fail_before_generate = False
            signer.scheduler = signer.make_scheduler(signer.scheduler._holder)

            await signer.look_after()

            assert (signer.key().primary_number, len(token.keys)) == (2, 2)

    run(scenario())


def test_a_statement_never_says_a_later_time_than_that_of_the_take_over(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with make_signer(tmp_path) as signer:
            first = to_pem((await signer.create_key()).primary.public_key).encode()
            planned = await signer.rotate(activate_time=Instant(signer.clock.now + HOUR))
            signer.clock.advance(60)

            version = await signer.change(Verb.ACTIVATE, 2)

            assert planned.primary_number == 1
            async with signer.store.transaction() as transaction:
                (found,) = transaction.continuity.list(EU, 0, 10)
            statement = {"signed_by_old": found.signed_by_old, "signed_by_new": found.signed_by_new}
            document = json.dumps({"key": str(EU), "statements": [statement]}).encode()
            assert version.activate_time is not None
            assert verify_continuity(document, first).activate_times == (format_instant(version.activate_time),)
            assert record_types(signer.database).count("key.continuity_authorized") == 2

    run(scenario())


def test_a_statement_made_before_its_old_version_was_compromised_is_kept_when_the_new_one_takes_over_early(
    tmp_path: Path,
) -> None:
    async def scenario() -> None:
        async with make_signer(tmp_path) as signer:
            await signer.create_key()
            await signer.rotate(activate_time=Instant(signer.clock.now + HOUR))
            await signer.change(Verb.MARK_COMPROMISED, 1)

            await signer.change(Verb.ACTIVATE, 2)

            assert signer.key().primary_number == 2
            async with signer.store.transaction() as transaction:
                assert len(transaction.continuity.list(EU, 0, 10)) == 1
            assert "key.continuity_missing" not in record_types(signer.database)

    run(scenario())
