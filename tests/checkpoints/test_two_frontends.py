"""Several frontends on one store: one makes the checkpoints, whoever it is, and none contradicts another."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from hsmsigner.operations.checkpoints import CheckpointRules
from hsmsigner.operations.ports import Checkpoint, SignOutcome, SignTask
from hsmsigner.transparency.note import SignatureLine, add_lines
from tests.builder import Signer, check_invariants
from tests.checkpoints.notes import check_checkpoints, checkpoints
from tests.checkpoints.test_checkpoints import grow, log_vkeys
from tests.fakes import FakeClock, FakeToken

LEASE_S = 11


@dataclass
class HesitantToken(FakeToken):
    """Signs, and gives the signature out only when it is let."""

    let_go: asyncio.Event = field(default_factory=asyncio.Event)
    asked: asyncio.Event = field(default_factory=asyncio.Event)

    async def sign(self, tasks: Sequence[SignTask]) -> list[SignOutcome]:
        outcomes = await super().sign(tasks)
        self.asked.set()
        await self.let_go.wait()
        return outcomes


@asynccontextmanager
async def two_signers(folder: Path, **options: object) -> AsyncIterator[tuple[Signer, Signer]]:
    clock, token = FakeClock(), FakeToken()
    signers = [Signer(folder, clock=clock, token=token, **options) for _ in range(2)]  # type: ignore[arg-type]
    for signer in signers:
        await signer.start()
    try:
        yield signers[0], signers[1]
    finally:
        for signer in signers:
            await signer.stop()
    check_invariants(folder / "store.sqlite3")


def test_under_load_one_of_two_makes_them_all_and_the_other_goes_on_when_it_dies(tmp_path: Path) -> None:
    async def scenario() -> None:
        rules = CheckpointRules("test.example/log", 1, 0.01)
        made: dict[str, list[Checkpoint]] = {"one": [], "two": []}
        news = asyncio.Event()

        def told(who: str) -> object:
            async def tell(checkpoint: Checkpoint) -> None:
                made[who].append(checkpoint)
                news.set()

            return tell

        async def until_more(who: str, count: int) -> None:
            while len(made[who]) < count:
                await grow(one)
                await grow(two)
                await asyncio.sleep(0.01)

        async with two_signers(tmp_path, checkpoint_rules=rules) as (one, two):
            makers = {
                who: signer.make_checkpoints(who, [told(who)])  # type: ignore[list-item]
                for who, signer in (("one", one), ("two", two))
            }
            # So that it is known who has the lease.
            await makers["one"].round()
            loops = {who: asyncio.create_task(maker.run()) for who, maker in makers.items()}
            await until_more("one", 5)
            assert made["two"] == []

            loops["one"].cancel()
            one.clock.advance(LEASE_S)
            await until_more("two", 5)

            loops["two"].cancel()
            await asyncio.gather(*loops.values(), return_exceptions=True)
            await makers["two"].round(is_forced=True)
            sizes = check_checkpoints(one.database, log_vkeys(two))
            assert len(sizes) >= 9
            # The first that the second is told of is one that the first may have died over.
            assert made["two"][0].size in sizes

    asyncio.run(asyncio.wait_for(scenario(), 60))


def test_a_former_holder_that_wakes_up_late_leaves_the_note_as_it_is(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with two_signers(tmp_path) as (one, two):
            await one.checkpoints.round()
            await grow(one)
            hesitant = HesitantToken(keys=one.token.keys)
            one.token = hesitant
            late = asyncio.create_task(one.make_checkpoints("late").round(is_forced=True))
            # It has to wait for the lease of the first first.
            assert await late is None
            one.clock.advance(LEASE_S)
            late = asyncio.create_task(one.make_checkpoints("late").round(is_forced=True))
            await hesitant.asked.wait()
            one.clock.advance(LEASE_S)

            finished = await two.checkpoints.round()

            assert finished is not None
            cosigned = add_lines(finished.note, [SignatureLine("witness", b"abcd", bytes(72))])
            async with two.store.transaction() as transaction:
                transaction.checkpoints.save_note(finished.size, cosigned, 1)
            hesitant.let_go.set()
            told_late = await late
            assert told_late is not None
            assert (told_late.size, told_late.root_hash) == (finished.size, finished.root_hash)
            assert [note for size, _, note in checkpoints(one.database) if size == finished.size] == [cosigned]
            await grow(two)
            assert await two.checkpoints.round() is not None
            check_checkpoints(one.database, log_vkeys(two))

    asyncio.run(asyncio.wait_for(scenario(), 60))
