"""Rotation by itself: what makes it due, one scheduler at a time, and clocks that jump."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from hsmsigner.domain.key import KeyName, KeyState
from hsmsigner.domain.lifecycle import Verb
from hsmsigner.domain.principal import APPLIANCE
from hsmsigner.domain.rotation import PrimaryFacts, next_rotation_time
from hsmsigner.operations.grace import DestructionGrace
from hsmsigner.operations.scheduler import LEASE_US
from tests.builder import POLICY, Signer, make_signer, read_log, record_types
from tests.fakes import FakeClock
from tests.scenarios import run

SECOND = 1_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR
EU = KeyName("settlement-eu")
UNLIMITED = POLICY.replace("count: 5,", "count: 500,").replace("count: 20,", "count: 5000,")


def states(signer: Signer) -> str:
    """First letters, oldest first, the primary in capitals: `dA` is a DEACTIVATED and an ACTIVE primary."""
    key = signer.key()
    letters = {KeyState.PRE_ACTIVATION: "p", KeyState.ACTIVE: "a", KeyState.SUSPENDED: "s", KeyState.DEACTIVATED: "d",
               KeyState.COMPROMISED: "c", KeyState.DESTROY_SCHEDULED: "x", KeyState.DESTROYED: "-"}  # fmt: skip
    shown = [letters[version.state] for version in key.versions]
    shown[key.primary_number - 1] = shown[key.primary_number - 1].upper()
    return "".join(shown)


async def pass_time(signer: Signer, seconds: float) -> str:
    signer.clock.advance(seconds)
    await signer.look_after()
    return states(signer)


def test_by_age_the_next_key_is_published_its_lead_ahead_and_the_old_one_lives_through_its_overlap(
    tmp_path: Path,
) -> None:
    async def scenario() -> None:
        async with make_signer(tmp_path) as signer:
            await signer.create_key()
            made = signer.clock.now
            key = await signer.set_policy(
                rotation_period_us=DAY, publish_lead_us=HOUR, overlap_us=2 * HOUR, destroy_after_us=3 * HOUR
            )
            assert next_rotation_time(key, PrimaryFacts()) == made + 23 * HOUR

            assert await pass_time(signer, 23 * 3600 - 1) == "A"
            assert await pass_time(signer, 1) == "Ap"
            assert signer.key().versions[1].activate_time == made + DAY
            assert await pass_time(signer, 3599) == "Ap"
            assert await pass_time(signer, 1) == "aA"
            assert await pass_time(signer, 2 * 3600) == "xA"
            assert signer.key().versions[0].destroy_time == made + DAY + 5 * HOUR
            assert await pass_time(signer, 3 * 3600) == "-A"
            assert len(signer.token.keys) == 1
            mine = [record for record in read_log(signer.database) if record.get("principal") == APPLIANCE.text]
            assert {record["reason"] for record in mine if record["type"] == "key.activated"} == {"due by age"}

    run(scenario())


async def watch(signer: Signer, ticks: FakeClock, seconds: float) -> str:
    """Let time pass with a round of the scheduler at least every minute."""
    while seconds > 0:
        step = min(seconds, 50)
        ticks.advance(step)
        await pass_time(signer, step)
        seconds -= step
    return states(signer)


def test_by_signatures(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with make_signer(tmp_path, policy=UNLIMITED) as signer:
            await signer.create_key()
            await signer.set_policy(max_signatures=3)
            await signer.sign()
            await signer.sign()
            assert await pass_time(signer, 1) == "A"
            await signer.sign()
            assert await pass_time(signer, 1) == "dA"
            assert await pass_time(signer, 1) == "dA"

    run(scenario())


def test_by_the_expiry_of_the_certificate(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with make_signer(tmp_path) as signer:
            key = await signer.create_key()
            await signer.set_policy(before_certificate_expiry_us=10 * DAY, publish_lead_us=DAY)
            private = signer.token.keys[key.primary.cka_id]
            assert isinstance(private, EllipticCurvePrivateKey)
            pem = certificate(private, datetime.fromtimestamp(signer.clock.now / 1e6, UTC), days=30)
            async with signer.store.transaction() as transaction:
                version = signer.key().primary
                object.__setattr__(version, "certificate_chain", pem)
                transaction.keys.save_version(version)
                transaction.raise_epoch()
            await signer.governance.reload(signer.store)

            assert await pass_time(signer, 19 * 86_400 - 1) == "A"
            assert await pass_time(signer, 1) == "Ap"
            assert await pass_time(signer, 86_400) == "dA"

    run(scenario())


def certificate(private: EllipticCurvePrivateKey, begin: datetime, *, days: int) -> str:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    builder = x509.CertificateBuilder(name, name, private.public_key(), 1, begin, begin + timedelta(days=days))
    return builder.sign(private, hashes.SHA256()).public_bytes(Encoding.PEM).decode()


def test_a_suspended_key_is_not_brought_back_to_life_by_its_rotation(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with make_signer(tmp_path) as signer:
            await signer.create_key()
            await signer.set_policy(rotation_period_us=DAY, publish_lead_us=HOUR)
            assert await pass_time(signer, 23 * 3600) == "Ap"
            await signer.change(Verb.SUSPEND, 1)
            assert await pass_time(signer, 2 * 3600) == "Sp"
            await signer.change(Verb.RESUME, 1)
            assert await pass_time(signer, 1) == "dA"
            await signer.change(Verb.SUSPEND, 2)
            assert await pass_time(signer, 86_400) == "dS"

    run(scenario())


def test_a_clock_that_jumps_forward_hurries_the_steps_and_skips_none(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with make_signer(tmp_path) as signer:
            await signer.create_key()
            await signer.set_policy(rotation_period_us=DAY, publish_lead_us=HOUR, overlap_us=HOUR, destroy_after_us=DAY)
            # A year has passed, or so it seems: one rotation, and its key is published a whole hour before it signs.
            assert await pass_time(signer, 365 * 86_400) == "Ap"
            assert signer.key().versions[1].activate_time == signer.clock.now + HOUR
            assert await pass_time(signer, 3600) == "aA"
            # Another year. The overlap is over; the next rotation begins; and the old version is not destroyed before
            # somebody had an hour to restore it.
            assert await pass_time(signer, 365 * 86_400) == "xAp"
            assert signer.key().versions[0].destroy_time == signer.clock.now + HOUR
            order = [record for record in record_types(signer.database) if record.startswith("key.")]
            assert order[3:9] == [
                "key.rotation_started",
                "key.version_created",
                "key.continuity_authorized",
                "key.continuity",
                "key.activated",
                "key.deactivated",
            ]

    run(scenario())


def test_a_clock_that_jumps_backward_undoes_nothing_and_the_scheduler_goes_on(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with make_signer(tmp_path) as signer:
            await signer.create_key()
            await signer.set_policy(rotation_period_us=DAY, publish_lead_us=HOUR, overlap_us=HOUR)
            assert await pass_time(signer, 23 * 3600) == "Ap"
            assert await pass_time(signer, -365 * 86_400) == "Ap"
            assert await pass_time(signer, 365 * 86_400 + 3600) == "aA"
            assert await pass_time(signer, -365 * 86_400) == "aA"
            await signer.sign()
            assert await pass_time(signer, 365 * 86_400 + 3600) == "dA"

    run(scenario())


def test_a_clock_that_jumps_ahead_destroys_nothing_if_it_is_set_right_within_the_grace(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with make_signer(tmp_path) as signer:
            await signer.create_key()
            await signer.rotate()
            await signer.change(Verb.SCHEDULE_DESTROY, 1)
            ticks = FakeClock(0)
            signer.scheduler = signer.make_scheduler("patient", DestructionGrace(3600, lambda: ticks() / SECOND))

            # Ten years ahead, for an hour less a moment; the log's own time stays there afterwards.
            assert await pass_time(signer, 3650 * 86_400) == "xA"
            assert await watch(signer, ticks, 3599.9) == "xA"
            await signer.sign()
            assert await pass_time(signer, -3650 * 86_400) == "xA"
            assert await watch(signer, ticks, 3600) == "xA"
            assert len(signer.token.keys) == 2

            # Its time really comes; it is destroyed once that was seen for the whole grace.
            assert await pass_time(signer, 30 * 86_400) == "xA"
            assert await watch(signer, ticks, 3600) == "-A"

    run(scenario())


def test_a_version_that_was_scheduled_anew_is_not_destroyed_by_what_was_seen_of_its_former_time(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with make_signer(tmp_path) as signer:
            await signer.create_key()
            await signer.rotate()
            await signer.change(Verb.SCHEDULE_DESTROY, 1)
            ticks = FakeClock(0)
            signer.scheduler = signer.make_scheduler("patient", DestructionGrace(3600, lambda: ticks() / SECOND))
            assert await pass_time(signer, 31 * 86_400) == "xA"
            await signer.change(Verb.RESTORE, 1)
            await signer.change(Verb.SCHEDULE_DESTROY, 1)

            assert await watch(signer, ticks, 3600) == "xA"

    run(scenario())


def test_a_version_that_was_restored_is_left_alone(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with make_signer(tmp_path) as signer:
            await signer.create_key()
            await signer.set_policy(destroy_after_us=DAY)
            await signer.rotate()
            assert await pass_time(signer, 1) == "xA"
            await signer.change(Verb.RESTORE, 1)
            assert await pass_time(signer, 10 * 86_400) == "dA"

    run(scenario())


def test_of_two_schedulers_on_one_store_only_one_acts(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with make_signer(tmp_path) as signer:
            await signer.create_key()
            one, other = signer.make_scheduler("one"), signer.make_scheduler("other")
            assert (await one.round(), await other.round(), await one.round()) == (True, False, True)

            # The holder dies: the other takes over when the lease is over, not before.
            signer.clock.advance(LEASE_US / SECOND - 1)
            assert await other.round() is False
            signer.clock.advance(1)
            assert (await other.round(), await one.round()) == (True, False)
            # The clock is set back by a year: a lease from the future binds nobody.
            signer.clock.advance(-365 * 86_400)
            assert await one.round() is True

    run(scenario())


def test_two_frontends_that_both_believe_to_hold_the_lease_do_no_harm(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with make_signer(tmp_path) as signer:
            await signer.create_key()
            await signer.set_policy(rotation_period_us=DAY)
            other = Signer(tmp_path, clock=signer.clock, token=signer.token)
            await other.start()
            signer.clock.advance(86_400)

            await asyncio.gather(*(frontend.scheduler.take_step(EU) for frontend in (signer, other)))
            await asyncio.gather(*(frontend.rotations.advance(EU) for frontend in (signer, other)))

            await signer.governance.reload(signer.store)
            assert states(signer) == "dA"
            assert len(signer.token.keys) == 2
            assert record_types(signer.database).count("key.activated") == 1
            await other.stop()

    run(scenario())


def test_a_key_that_fails_does_not_stop_the_others(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with make_signer(tmp_path) as signer:
            await signer.create_key("settlement-us", "ED25519")
            await signer.create_key()
            await signer.set_policy(rotation_period_us=DAY)
            cause = signer.key().rotation_policy
            async with signer.store.transaction() as transaction:
                us = signer.key("settlement-us")
                object.__setattr__(us, "rotation_policy", cause)
                transaction.keys.save_key(us)
                transaction.raise_epoch()
            await signer.governance.reload(signer.store)
            generate = signer.token.generate

            async def fail_for_eddsa(*arguments: object) -> object:
                if getattr(arguments[2], "name", "") == "ED25519":
                    raise RuntimeError("the token is odd")
                return await generate(*arguments)  # type: ignore[arg-type]

            signer.token.generate = fail_for_eddsa  # type: ignore[assignment,method-assign]
            assert await pass_time(signer, 86_400) == "dA"
            assert signer.key("settlement-us").version(2) is None

    run(scenario())
