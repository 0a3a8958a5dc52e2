"""A signer that kills itself with SIGKILL at a named step of its first checkpoint; run by test_kill_at_each_step.py.

Usage: checkpoint_and_crash.py FOLDER STEP. The store is the real one and the process really dies. The token is the fake
one with its keys in files. Without a step it makes whatever checkpoints it can, and writes the log's vkeys to stdout.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from hsmsigner.domain.instant import Instant
from hsmsigner.domain.key import LOG_KEY
from hsmsigner.domain.record import Entry
from hsmsigner.operations.log_key import vkeys
from hsmsigner.operations.ports import Checkpoint
from hsmsigner.store.transaction import SqlTransaction
from tests.builder import Signer
from tests.fakes import FakeClock
from tests.lifecycle.rotate_and_crash import TokenOnDisk, Trap, TrappedStore

KEY_STEPS = (
    *(f"{moment} {kind}" for kind in ("key.requested", "key.created") for moment in ("inside", "after")),
    "before the token generates",
    "after the token generates",
)
STEPS = (
    *KEY_STEPS,
    *(f"{moment} the {what}" for what in ("tree", "note") for moment in ("inside", "after")),
    "before the token signs",
    "after the token signs",
)
LEASE_IS_OVER_S = 60


class CheckpointTrappedStore(TrappedStore):
    """Traps what a checkpoint writes, too; the records are its base's."""

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[SqlTransaction]:
        written = ""
        async with super().transaction() as transaction:
            table = transaction.checkpoints
            insert, save_note = table.insert, table.save_note

            def noted_insert(checkpoint: Checkpoint) -> None:
                nonlocal written
                insert(checkpoint)
                written = "the tree"
                Trap.reached(f"inside {written}")

            def noted_save(size: int, note: str, witnesses: int) -> None:
                nonlocal written
                save_note(size, note, witnesses)
                written = "the note"
                Trap.reached(f"inside {written}")

            table.insert, table.save_note = noted_insert, noted_save  # type: ignore[method-assign]
            yield transaction
        if written:
            Trap.reached(f"after {written}")


async def main(folder: Path, step: str) -> None:
    token = TokenOnDisk()
    token.folder = folder
    token.load()
    clock = FakeClock()
    signer = Signer(folder, clock=clock, token=token, store_class=CheckpointTrappedStore)
    await signer.start()
    await signer.keys.finish_pending()
    async with signer.store.transaction() as transaction:
        # Nobody else is there whose lease would have to be waited for.
        clock.now = transaction.last_time
        clock.advance(LEASE_IS_OVER_S)
        # What is made next is never by chance what was begun.
        transaction.append([Entry("test.started", {})], Instant(clock.now))
    Trap.step = step
    for _ in range(3):
        await signer.checkpoints.round(is_forced=True)
    sys.stdout.write("\n".join(vkeys(signer.governance.newest.key(LOG_KEY), signer.checkpoint_rules.origin)))
    await signer.stop()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
