"""What happens while too few witnesses have seen the log: `without_quorum: stop`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from hsmsigner.errors import Reason, SignerError, cannot_record
from hsmsigner.operations.ports import Checkpoint
from hsmsigner.operations.quorum import QuorumGate
from hsmsigner.operations.witnessing import Witnessing
from hsmsigner.transparency.note import add_lines, parse_vkey
from hsmsigner.witness.setup import make_witnesses
from tests.builder import OPERATOR, Signer, fresh_id, make_signer
from tests.witness.growing import DEADLINE_S, GrowingLog, at_work, growing, until
from tests.witness.twins import WitnessTwin, http, serving

PATIENCE_S = 300
TWINS = [WitnessTwin(f"witness.example/w{number}") for number in (1, 2, 3)]
Scenario = Callable[[GrowingLog, QuorumGate], Awaitable[None]]


def gate_of(
    log: GrowingLog, quorum: int = 2, twins: list[WitnessTwin] = TWINS, patience_s: float = PATIENCE_S
) -> QuorumGate:
    witnesses = make_witnesses((twin.key.vkey, "http://127.0.0.1:1") for twin in twins)
    count = Witnessing(log.store, witnesses).learn
    return QuorumGate(log.store, log.clock, count, quorum=quorum, patience_s=patience_s)


def run(folder: Path, scenario: Scenario) -> None:
    async def whole() -> None:
        async with growing(folder) as log:
            await scenario(log, gate_of(log))

    asyncio.run(asyncio.wait_for(whole(), 2 * DEADLINE_S))


async def cosign(log: GrowingLog, made: Checkpoint, *twins: WitnessTwin) -> None:
    async with log.store.transaction() as transaction:
        note = add_lines(made.note, [twin.line(made.note) for twin in twins])
        transaction.checkpoints.save_note(made.size, note, len(twins))


async def is_open(gate: QuorumGate) -> bool:
    await gate.look()
    return gate.refusal() is None


def test_before_the_first_look_nothing_is_signed(tmp_path: Path) -> None:
    async def scenario(_log: GrowingLog, gate: QuorumGate) -> None:
        assert gate.refusal() is not None
        assert await is_open(gate)

    run(tmp_path, scenario)


def test_it_closes_when_the_oldest_unwitnessed_record_is_too_old(tmp_path: Path) -> None:
    async def scenario(log: GrowingLog, gate: QuorumGate) -> None:
        await log.checkpoint(5)
        log.clock.advance(PATIENCE_S)
        assert await is_open(gate)
        log.clock.advance(1)
        assert not await is_open(gate)

        refusal = gate.refusal()
        assert refusal is not None
        assert refusal.reason is Reason.AUDIT_UNAVAILABLE
        assert "too few witnesses" in refusal.message
        assert refusal.retry_after_s

    run(tmp_path, scenario)


def test_a_log_that_does_not_grow_needs_no_new_witnessing(tmp_path: Path) -> None:
    async def scenario(log: GrowingLog, gate: QuorumGate) -> None:
        await cosign(log, await log.checkpoint(5), *TWINS[:2])
        log.clock.advance(100 * PATIENCE_S)
        assert await is_open(gate)

        await log.grow(1)
        assert await is_open(gate)
        log.clock.advance(PATIENCE_S + 1)
        assert not await is_open(gate)

    run(tmp_path, scenario)


def test_fewer_than_the_quorum_do_not_help_and_one_more_does(tmp_path: Path) -> None:
    async def scenario(log: GrowingLog, gate: QuorumGate) -> None:
        made = await log.checkpoint(5)
        log.clock.advance(PATIENCE_S + 1)
        await cosign(log, made, TWINS[0])
        assert not await is_open(gate)
        await cosign(log, made, *TWINS[1:])
        assert await is_open(gate)

    run(tmp_path, scenario)


def test_an_older_witnessed_checkpoint_covers_only_its_own_records(tmp_path: Path) -> None:
    async def scenario(log: GrowingLog, gate: QuorumGate) -> None:
        await cosign(log, await log.checkpoint(5), *TWINS)
        await log.checkpoint(5)
        log.clock.advance(PATIENCE_S + 1)
        await log.checkpoint(5)

        assert not await is_open(gate)

    run(tmp_path, scenario)


def test_witnesses_that_are_no_longer_in_the_settings_do_not_count(tmp_path: Path) -> None:
    async def scenario(log: GrowingLog, gate: QuorumGate) -> None:
        await cosign(log, await log.checkpoint(5), *TWINS[:2])
        log.clock.advance(PATIENCE_S + 1)
        assert await is_open(gate)

        replaced = gate_of(log, twins=[TWINS[0], TWINS[2], WitnessTwin("witness.example/w4")])
        assert not await is_open(replaced)

    run(tmp_path, scenario)


def test_a_restart_grants_no_new_patience(tmp_path: Path) -> None:
    async def scenario(log: GrowingLog, _gate: QuorumGate) -> None:
        await log.checkpoint(5)
        log.clock.advance(PATIENCE_S + 1)
        await log.grow(1)

        assert not await is_open(gate_of(log))

    run(tmp_path, scenario)


def test_a_clock_that_is_set_back_does_not_keep_it_open(tmp_path: Path) -> None:
    async def scenario(log: GrowingLog, _gate: QuorumGate) -> None:
        gate = gate_of(log, patience_s=0.05)
        await log.checkpoint(5)
        log.clock.advance(-86_400)
        assert await is_open(gate)

        async def is_closed() -> bool:
            return not await is_open(gate)

        await until(is_closed)

    run(tmp_path, scenario)


def test_without_a_quorum_it_is_always_open(tmp_path: Path) -> None:
    async def scenario(log: GrowingLog, _gate: QuorumGate) -> None:
        gate = gate_of(log, 0)
        await log.checkpoint(5)
        log.clock.advance(PATIENCE_S + 1)
        await gate.run()

        assert gate.refusal() is None

    run(tmp_path, scenario)


def test_a_sealed_record_that_nobody_witnessed_is_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(log: GrowingLog, gate: QuorumGate) -> None:
        async def sealed(*_arguments: object) -> None:
            raise SignerError(Reason.RECORDS_SEALED, "records below 65536 were sealed")

        monkeypatch.setattr(log.store, "read_log", sealed)
        assert not await is_open(gate)

    run(tmp_path, scenario)


def test_while_the_store_is_away_it_stays_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(log: GrowingLog, gate: QuorumGate) -> None:
        assert await is_open(gate)
        asked_for = asyncio.Event()

        async def away(*_arguments: object) -> None:
            asked_for.set()
            raise cannot_record()

        monkeypatch.setattr(log.store, "read_newest_checkpoint", away)
        async with at_work(gate.run()):
            await asyncio.wait_for(asked_for.wait(), DEADLINE_S)
            assert gate.refusal() is None

    run(tmp_path, scenario)


class Appliance(AsyncExitStack):
    """A whole signer with one witness, which can be switched off, and a quorum of one."""

    def __init__(self, signer: Signer) -> None:
        super().__init__()
        self.signer = signer
        self.twin = WitnessTwin(origin=signer.checkpoint_rules.origin)
        self.is_well = True

    async def start(self) -> None:
        url = await self.enter_async_context(serving(self._answer))
        store, clock = self.signer.store, self.signer.clock
        self.witnessing = Witnessing(store, make_witnesses([(self.twin.key.vkey, url)]), pause_s=0.01)
        self.gate = QuorumGate(store, clock, self.witnessing.learn, quorum=1, patience_s=PATIENCE_S)
        self.checkpoints = self.signer.make_checkpoints("holder", [self.witnessing.on_signed])
        self.signer.gates.append(self.gate.refusal)
        await self.enter_async_context(at_work(self.witnessing.run()))

    async def checkpoint(self) -> Checkpoint:
        made = await self.checkpoints.round(is_forced=True)
        assert made is not None
        return made

    async def _answer(
        self, method: str, path: str, _h: dict[str, str], body: bytes, writer: asyncio.StreamWriter
    ) -> None:
        self.twin.log_key = parse_vkey(self.signer.audit.vkeys(OPERATOR)[-1])
        writer.write(self.twin.answer(method, path, body) if self.is_well else http(503))


def test_signing_stops_without_a_quorum_and_resumes_by_itself(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with make_signer(tmp_path) as signer, Appliance(signer) as appliance:
            await appliance.start()
            await signer.create_key()
            await appliance.gate.look()
            request_id = fresh_id()
            first = await signer.sign(request_id=request_id)

            appliance.is_well = False
            await appliance.checkpoint()
            signer.clock.advance(PATIENCE_S + 1)
            await appliance.gate.look()
            for again in (fresh_id(), request_id):
                with pytest.raises(SignerError, match="too few witnesses") as caught:
                    await signer.sign(request_id=again)
                assert caught.value.reason is Reason.AUDIT_UNAVAILABLE

            appliance.is_well = True
            await until(lambda: appliance.witnessing.status()[0].cosigned_size > 0)
            await until(lambda: is_open(appliance.gate))
            assert (await signer.sign(request_id=request_id)).signature == first.signature
            assert (await signer.sign()).signature

    asyncio.run(asyncio.wait_for(scenario(), 2 * DEADLINE_S))
