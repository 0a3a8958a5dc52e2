"""Checkpoints of a real store, cosigned by witnesses over HTTP: lines, counts, pace and memory."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from hsmsigner.errors import cannot_record
from hsmsigner.operations.ports import Checkpoint
from hsmsigner.operations.witnessing import Witnessing
from hsmsigner.store.unit_of_work import SqlStore
from hsmsigner.transparency.checkpoint import parse_checkpoint
from hsmsigner.transparency.note import SignatureLine, add_lines, read_note
from hsmsigner.witness.setup import make_witnesses
from tests.witness.growing import DEADLINE_S, GrowingLog, at_work, growing, until
from tests.witness.twins import Answering, WitnessTwin, always, http, played_by, serving

PAUSE_S = 0.01
ONE, TWO, THREE = (WitnessTwin(f"witness.example/w{number}") for number in (1, 2, 3))
Scenario = Callable[[GrowingLog], Awaitable[None]]


def run(folder: Path, scenario: Scenario) -> None:
    async def whole() -> None:
        async with growing(folder) as log:
            await scenario(log)

    asyncio.run(asyncio.wait_for(whole(), 2 * DEADLINE_S))


class Stage(AsyncExitStack):
    """Servers that play witnesses, and a `Witnessing` that asks them."""

    def __init__(self, log: GrowingLog, timeout_s: float = 15.0) -> None:
        super().__init__()
        self.log = log
        self.timeout_s = timeout_s
        self.told: list[Checkpoint] = []

    async def ask(self, *played: tuple[WitnessTwin, Answering]) -> Witnessing:
        pairs = [(twin.key.vkey, await self.enter_async_context(serving(answer))) for twin, answer in played]

        async def tell(checkpoint: Checkpoint) -> None:
            self.told.append(checkpoint)

        clients = make_witnesses(pairs, timeout_s=self.timeout_s)
        witnessing = Witnessing(self.log.store, clients, [tell], pause_s=PAUSE_S)
        await self.enter_async_context(at_work(witnessing.run()))
        return witnessing

    async def cosigned(self, size: int, count: int) -> Checkpoint:
        async def is_so() -> bool:
            return (await self.log.stored(size)).witnesses == count

        await until(is_so)
        return await self.log.stored(size)


def twins(count: int) -> list[WitnessTwin]:
    return [WitnessTwin(f"witness.example/w{number}") for number in range(1, count + 1)]


def test_all_witnesses_cosign_each_checkpoint_and_their_lines_are_in_its_note(tmp_path: Path) -> None:
    async def scenario(log: GrowingLog) -> None:
        witnesses = twins(3)
        async with Stage(log) as stage:
            witnessing = await stage.ask(*((twin, played_by(twin)) for twin in witnesses))
            for count in (5, 300, 1):
                made = await log.checkpoint(count)
                await witnessing.on_signed(made)
                whole = await stage.cosigned(made.size, 3)

                lines = {twin.line(made.note) for twin in witnesses} | set(read_note(made.note)[1])
                assert set(read_note(whole.note)[1]) == lines
                assert await log.store.read_newest_checkpoint(3) == whole
                assert stage.told[-1] == whole
            assert [state.cosigned_size for state in witnessing.status()] == [306] * 3
            assert [twin.asked for twin in witnesses] == [["old 0", "old 5", "old 305"]] * 3

    run(tmp_path, scenario)


def test_a_witness_that_hangs_delays_no_other(tmp_path: Path) -> None:
    async def hang(_m: str, _p: str, _h: dict[str, str], _b: bytes, _writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(600)

    async def scenario(log: GrowingLog) -> None:
        good, _ = twins(2)
        async with Stage(log, timeout_s=300) as stage:
            witnessing = await stage.ask((TWO, hang), (good, played_by(good)))
            for _ in range(3):
                made = await log.checkpoint(7)
                await witnessing.on_signed(made)
                await stage.cosigned(made.size, 1)
            hanging, well = witnessing.status()
            assert (hanging.cosigned_size, well.cosigned_size, well.fault) == (0, 21, "")

    run(tmp_path, scenario)


def test_what_failed_is_tried_again_with_the_newest_checkpoint_only(tmp_path: Path) -> None:
    async def scenario(log: GrowingLog) -> None:
        twin, is_well, refused = WitnessTwin(), asyncio.Event(), []

        async def answer(method: str, path: str, _h: dict[str, str], body: bytes, writer: asyncio.StreamWriter) -> None:
            if not is_well.is_set():
                refused.append(parse_checkpoint(body.decode().partition("\n\n")[2]).size)
            writer.write(twin.answer(method, path, body) if is_well.is_set() else http(503))

        async with Stage(log) as stage:
            witnessing = await stage.ask((twin, answer))
            await witnessing.on_signed(await log.checkpoint(5))
            await until(lambda: "HTTP 503" in witnessing.status()[0].fault)
            for _ in range(3):
                newest = await log.checkpoint(5)
                await witnessing.on_signed(newest)
            # No request with an older one is under way any more.
            await until(lambda: 20 in refused)
            is_well.set()
            await stage.cosigned(20, 1)

            assert twin.asked == ["old 0"]
            assert [(await log.stored(size)).witnesses for size in (5, 10, 15)] == [0, 0, 0]
            assert witnessing.status()[0].fault == ""

    run(tmp_path, scenario)


def test_the_size_that_a_witness_cosigned_last_outlives_a_restart(tmp_path: Path) -> None:
    async def scenario(log: GrowingLog) -> None:
        slow, quick = twins(2)
        async with Stage(log) as stage:
            witnessing = await stage.ask((slow, played_by(slow)), (quick, played_by(quick)))
            await witnessing.on_signed(await log.checkpoint(5))
            await stage.cosigned(5, 2)
        async with Stage(log) as stage:
            witnessing = await stage.ask((slow, always(http(503))), (quick, played_by(quick)))
            await witnessing.on_signed(await log.checkpoint(5))
            await stage.cosigned(10, 1)
        async with Stage(log) as stage:
            witnessing = await stage.ask((slow, played_by(slow)), (quick, played_by(quick)))
            await until(lambda: [state.cosigned_size for state in witnessing.status()] == [5, 10])
            await witnessing.on_signed(await log.checkpoint(5))
            await stage.cosigned(15, 2)

        # Not one request in vain: none was answered 409.
        assert slow.asked == ["old 0", "old 5"]
        assert quick.asked == ["old 0", "old 5", "old 10"]

    run(tmp_path, scenario)


def test_a_witness_that_was_reset_or_knows_more_is_asked_from_where_it_stands(tmp_path: Path) -> None:
    async def scenario(log: GrowingLog) -> None:
        twin = WitnessTwin()
        async with Stage(log) as stage:
            witnessing = await stage.ask((twin, played_by(twin)))
            await witnessing.on_signed(await log.checkpoint(5))
            await stage.cosigned(5, 1)
            twin.size, twin.root = 0, b""
            await witnessing.on_signed(await log.checkpoint(5))
            await stage.cosigned(10, 1)

        assert twin.asked == ["old 0", "old 5", "old 0"]

    run(tmp_path, scenario)


def test_a_witness_that_another_frontend_asked_first_contradicts_nobody(tmp_path: Path) -> None:
    async def scenario(log: GrowingLog) -> None:
        twin = WitnessTwin()
        older = await log.checkpoint(5)
        newer = await log.checkpoint(5)
        async with Stage(log) as stage:
            witnessing = await stage.ask((twin, played_by(twin)))
            twin.size, twin.root = newer.size, newer.root_hash
            await witnessing.on_signed(older)
            await stage.cosigned(newer.size, 1)

            assert witnessing.status()[0].fault == ""

    run(tmp_path, scenario)


def test_what_is_no_cosignature_is_never_attached_and_the_others_are(tmp_path: Path) -> None:
    async def scenario(log: GrowingLog) -> None:
        honest = WitnessTwin()
        made = await log.checkpoint(5)
        forged = SignatureLine(TWO.name, TWO.key.key_id, WitnessTwin("mallory").line(made.note).signature)
        async with Stage(log) as stage:
            witnessing = await stage.ask(
                (TWO, always(http(200, forged.text.encode()))),
                (honest, played_by(honest)),
                (THREE, always(http(200, ONE.line(made.note).text.encode()))),
            )
            await witnessing.on_signed(made)
            whole = await stage.cosigned(5, 1)
            await until(lambda: sum(bool(state.fault) for state in witnessing.status()) == 2)

            assert read_note(whole.note)[1] == (*read_note(made.note)[1], honest.line(made.note))
            assert "does not verify" in witnessing.status()[0].fault

    run(tmp_path, scenario)


def test_a_store_that_is_away_for_a_moment_costs_no_cosignature(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(log: GrowingLog) -> None:
        twin, made = WitnessTwin(), await log.checkpoint(5)
        whole, left = log.store.transaction, [cannot_record()]

        def transaction() -> object:
            if left:
                raise left.pop()
            return whole()

        async with Stage(log) as stage:
            witnessing = await stage.ask((twin, played_by(twin)))
            monkeypatch.setattr(log.store, "transaction", transaction)
            await witnessing.on_signed(made)
            await until(lambda: not left)
            await stage.cosigned(5, 1)

    run(tmp_path, scenario)


def test_a_fault_of_our_own_in_one_stops_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(log: GrowingLog) -> None:
        one, two = twins(2)
        made = await log.checkpoint(5)
        async with Stage(log) as stage:
            witnessing = await stage.ask((one, played_by(one)), (two, played_by(two)))

            async def broken(*_arguments: object) -> None:
                raise ZeroDivisionError

            monkeypatch.setattr(witnessing._followers[0].witness, "add_checkpoint", broken)
            await witnessing.on_signed(made)
            await stage.cosigned(5, 1)
            await until(lambda: bool(witnessing.status()[0].fault))
            monkeypatch.undo()
            await stage.cosigned(5, 2)

    run(tmp_path, scenario)


def test_a_line_that_is_there_is_not_asked_for_again(tmp_path: Path) -> None:
    async def scenario(log: GrowingLog) -> None:
        twin, made = WitnessTwin(), await log.checkpoint(5)
        async with log.store.transaction() as transaction:
            transaction.checkpoints.save_note(5, add_lines(made.note, [twin.line(made.note)]), 1)
        async with Stage(log) as stage:
            witnessing = await stage.ask((twin, played_by(twin)))
            await witnessing.on_signed(made)
            await until(lambda: witnessing.status()[0].cosigned_size == 5)
            await witnessing.on_signed(await log.checkpoint(5))
            await stage.cosigned(10, 1)

        assert twin.asked == ["old 5", "old 0"]

    run(tmp_path, scenario)


def test_two_frontends_that_attach_at_once_lose_no_line(tmp_path: Path) -> None:
    async def scenario(log: GrowingLog) -> None:
        witnesses = twins(8)
        other = SqlStore(f"sqlite:///{tmp_path / 'store.sqlite3'}")
        await other.reopen()
        try:
            async with Stage(log) as here, Stage(GrowingLog(other)) as there:
                ours = await here.ask(*((twin, played_by(twin)) for twin in witnesses[:4]))
                theirs = await there.ask(*((twin, played_by(twin)) for twin in witnesses[4:]))
                made = await log.checkpoint(5)
                await asyncio.gather(ours.on_signed(made), theirs.on_signed(made))

                async def has_all() -> bool:
                    return len(read_note((await log.stored(5)).note)[1]) == 1 + len(witnesses)

                await until(has_all)
        finally:
            await other.close()

    run(tmp_path, scenario)
