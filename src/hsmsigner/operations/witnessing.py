"""Has each new checkpoint cosigned by the witnesses, and writes their lines into its note."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import replace

from hsmsigner.domain.instant import MICROSECONDS_PER_SECOND, Instant
from hsmsigner.errors import SignerError
from hsmsigner.operations.delivery import FIRST_PAUSE_S, Delivery
from hsmsigner.operations.log_status import WitnessState
from hsmsigner.operations.ports import Checkpoint, CheckpointObserver, Store
from hsmsigner.operations.ports.witness import Cosignature, Fault, FaultKind, Witness
from hsmsigner.transparency.note import add_lines

_log = logging.getLogger(__name__)

_RETRY_START_S = 1.0


class Witnessing:
    """All witnesses of a log, each followed by a task of its own.

    What a witness has cosigned last is known from the stored notes, so it outlives a restart; where it is not, or where
    the witness knows better, its answer 409 says it.
    """

    def __init__(
        self,
        store: Store,
        witnesses: Sequence[Witness],
        observers: Sequence[CheckpointObserver] = (),
        *,
        pause_s: float = FIRST_PAUSE_S,
    ) -> None:
        self._store = store
        self._observers = observers
        self._followers = [_Follower(self, witness, pause_s) for witness in witnesses]

    async def on_signed(self, checkpoint: Checkpoint) -> None:
        """A new checkpoint is durable: have it cosigned. Returns at once."""
        for follower in self._followers:
            follower.delivery.offer(checkpoint)

    async def run(self) -> None:
        """Ask, and ask again where it failed, until cancelled."""
        await self._begin()
        async with asyncio.TaskGroup() as group:
            for follower in self._followers:
                group.create_task(follower.delivery.run())

    def status(self) -> list[WitnessState]:
        """How each witness stands, in the order of the settings."""
        return [follower.state() for follower in self._followers]

    def learn(self, checkpoint: Checkpoint) -> int:
        """See which witnesses a note is cosigned by; returns how many of the configured ones, whatever was counted."""
        return sum(follower.learn(checkpoint) for follower in self._followers)

    async def _begin(self) -> None:
        """Learn from the store what was cosigned so far. What still has to be, the holder of the lease tells."""
        while True:
            try:
                await self._learn_from_store()
            except SignerError as error:
                _log.info("witnesses have to wait: %s", error.message)
                await asyncio.sleep(_RETRY_START_S)
            else:
                return

    async def _learn_from_store(self) -> None:
        for follower in self._followers:
            cosigned = await self._store.read_newest_cosigned(follower.witness.line_start)
            if cosigned is not None:
                follower.learn(cosigned)

    async def newest(self, offered: Checkpoint) -> Checkpoint:
        """The newest checkpoint there is: another frontend may have made it, and its witnesses know it already.

        Raises:
            SignerError: AUDIT_UNAVAILABLE.
        """
        stored = await self._store.read_newest_checkpoint()
        return stored if stored is not None and stored.size >= offered.size else offered

    async def prove(self, old_size: int, checkpoint: Checkpoint) -> list[bytes]:
        """The proof that a checkpoint's tree begins with the tree of an older size."""
        return await self._store.consistency_proof(old_size, checkpoint.size)

    async def attach(self, checkpoint: Checkpoint, cosignature: Cosignature) -> None:
        """Write a line into the note, beside those that came while this one was waited for.

        Raises:
            SignerError: AUDIT_UNAVAILABLE.
        """
        async with self._store.transaction() as transaction:
            stored = transaction.checkpoints.first_signed(checkpoint.size)
            if stored is None or stored.size != checkpoint.size:
                return
            note = add_lines(stored.note, [cosignature.line])
            cosigned = replace(stored, note=note)
            cosigned = replace(cosigned, witnesses=self.learn(cosigned))
            transaction.checkpoints.save_note(cosigned.size, cosigned.note, cosigned.witnesses)
        for observe in self._observers:
            await observe(cosigned)


class _Follower:
    """One witness, and what it has cosigned."""

    def __init__(self, witnessing: Witnessing, witness: Witness, pause_s: float) -> None:
        self.witness = witness
        self.delivery = Delivery(f"witness {witness.name}", self._ask, first_pause_s=pause_s)
        self.size = 0
        self._time_s = 0
        self._witnessing = witnessing

    def state(self) -> WitnessState:
        time = Instant(self._time_s * MICROSECONDS_PER_SECOND) if self.size else None
        return WitnessState(self.witness.name, self.size, time, self.delivery.fault)

    def learn(self, checkpoint: Checkpoint) -> bool:
        """Whether this witness has cosigned the checkpoint."""
        found = self.witness.find_cosignature(checkpoint.note)
        if found is not None and checkpoint.size >= self.size:
            self.size, self._time_s = checkpoint.size, found.time_s
        return found is not None

    async def _ask(self, offered: Checkpoint) -> Fault | None:
        checkpoint = await self._witnessing.newest(offered)
        if self.learn(checkpoint):
            return None
        answer = await self._add(checkpoint)
        if isinstance(answer, Fault) and answer.kind is FaultKind.CONTRADICTED:
            newer = await self._witnessing.newest(checkpoint)
            # Another frontend was quicker, so the witness knows more than it was shown: no contradiction.
            if newer.size > checkpoint.size:
                checkpoint, answer = newer, await self._add(newer)
        if isinstance(answer, Fault):
            return answer
        await self._witnessing.attach(checkpoint, answer)
        return None

    async def _add(self, checkpoint: Checkpoint) -> Cosignature | Fault:
        return await self.witness.add_checkpoint(
            checkpoint, self.size, lambda old_size: self._witnessing.prove(old_size, checkpoint)
        )
