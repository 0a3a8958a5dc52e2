"""Making checkpoints: the log vouches for its size and root, in order, and never for two that contradict each other.

(a) Size and root are made durable, (b) the token signs them, (c) the note is made durable and may be shown. What was
begun is finished before anything else is begun, so a crash between the steps, or a token that is away for a day, leads
to the very same checkpoint. Exactly one frontend at a time does it, the holder of a lease in the store; a former holder
who wakes up late signs what the row says, or nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from hsmsigner.domain.instant import MICROSECONDS_PER_SECOND, Instant, not_before
from hsmsigner.domain.key import LOG_KEY, KeyVersion
from hsmsigner.errors import Reason, SignerError
from hsmsigner.operations.governance import GovernanceCache
from hsmsigner.operations.growth import LogGrowth
from hsmsigner.operations.jobs import sign_task
from hsmsigner.operations.log_key import LogKey, note_key, note_signature, signing_version
from hsmsigner.operations.ports import Checkpoint, CheckpointObserver, SignStatus, Store, Token, Transaction
from hsmsigner.transparency.checkpoint import CheckpointBody
from hsmsigner.transparency.note import write_note

_log = logging.getLogger(__name__)

LEASE = "checkpoints"
LEASE_US = 10 * MICROSECONDS_PER_SECOND
LOOK_EVERY_S = 1.0
_LEAST_PAUSE_S = 0.02
_FIRST_PAUSE_S = 1.0
_LONGEST_PAUSE_S = 60.0
# Nothing is wrong but that the token is away: soon after it is back, there is a checkpoint again.
_LONGEST_PAUSE_FOR_TOKEN_S = 5.0
# Whoever is told of a checkpoint and takes longer must not keep the next one from being made.
_OBSERVER_PATIENCE_S = 30.0
_STOP_PATIENCE_S = 5.0
_PASSING = frozenset({Reason.TOKEN_UNAVAILABLE, Reason.AUDIT_UNAVAILABLE})

# Says why nothing may be signed now; None when it may.
Gate = Callable[[], SignerError | None]


class ContradictionError(Exception):
    """What is to be signed contradicts an earlier checkpoint: the store was changed or rolled back."""


@dataclass(frozen=True, slots=True)
class CheckpointRules:
    """The log's name, and when a checkpoint is due: so many records or so long after the last, if the log grew."""

    origin: str
    records: int
    interval_s: float


class Checkpoints:
    """One frontend's candidate for the lease. `holder` is a name that no other process ever has.

    Each observer is told, in order, of every checkpoint that was signed here, once its note is durable; after a change
    of holder also of the newest one there is, since the former holder may have died before it told them.
    """

    def __init__(
        self,
        store: Store,
        token: Token,
        governance: GovernanceCache,
        clock: Callable[[], Instant],
        log_key: LogKey,
        *,
        growth: LogGrowth,
        rules: CheckpointRules,
        holder: str,
        observers: Sequence[CheckpointObserver] = (),
        gate: Gate = lambda: None,
    ) -> None:
        self._store = store
        self._token = token
        self._governance = governance
        self._clock = clock
        self._log_key = log_key
        self._growth = growth
        self._rules = rules
        self._holder = holder
        self._observers = tuple(observers)
        self._gate = gate
        self._is_holder = False
        # The size of the newest checkpoint as last seen, and when (event loop's time) it is too old.
        self._newest_size = 0
        self._due_s = 0.0
        self._pause_s = 0.0
        self._trouble = ""

    async def run(self) -> None:
        """Make checkpoints when they are due, until cancelled."""
        while True:
            try:
                await self.round()
                self._well()
            except (SignerError, ContradictionError) as error:
                self._troubled(error)
            if self._is_holder and not self._pause_s:
                # Under load the next one is due by number of records long before the next look.
                enough = self._newest_size + self._rules.records - 1
                await self._growth.wait_beyond(enough, min(LOOK_EVERY_S, self._rules.interval_s))
                await asyncio.sleep(_LEAST_PAUSE_S)
            else:
                await asyncio.sleep(max(LOOK_EVERY_S, self._pause_s))

    async def round(self, *, is_forced: bool = False) -> Checkpoint | None:
        """Make the checkpoint that is due (or, forced, any by which the log grew) and tell the observers.

        Raises:
            SignerError: TOKEN_UNAVAILABLE, KEY_NOT_ACTIVE, AUDIT_UNAVAILABLE and what LogKey.ensure raises; what was
                begun is finished by a later round.
            ContradictionError: nothing can be signed until the store is what it was.
        """
        if not await self._is_due(is_forced=is_forced):
            return None
        if not self._token.connected:
            raise SignerError(Reason.TOKEN_UNAVAILABLE, "the token cannot be reached, so no checkpoint can be signed")
        if (refusal := self._gate()) is not None:
            raise refusal
        await self._log_key.ensure()
        begun = await self._begin()
        if begun is None:
            return None
        await self._require_extension(begun)
        signed = await self._finish(begun)
        self._saw(signed.size)
        await self._tell(signed)
        return signed

    async def stop(self) -> None:
        """Make a last one if the log grew, and let another frontend go on; call it when `run` has ended."""
        # Whoever stops before there was a key does not begin to make one.
        has_key = self._governance.newest.key(LOG_KEY) is not None
        try:
            async with asyncio.timeout(_STOP_PATIENCE_S):
                if has_key:
                    await self.round(is_forced=True)
                async with self._store.transaction() as transaction:
                    if self._is_holder:
                        transaction.leases.take(LEASE, self._holder, self._clock(), 0)
        except (SignerError, ContradictionError, TimeoutError) as error:
            _log.warning("no checkpoint at the end: %s", str(error) or "it took too long")

    async def _is_due(self, *, is_forced: bool) -> bool:
        was_holder, unheard = self._is_holder, None
        async with self._store.transaction() as transaction:
            self._is_holder = transaction.leases.take(LEASE, self._holder, self._clock(), LEASE_US)
            if not self._is_holder:
                return False
            newest, size = transaction.checkpoints.newest(), transaction.tree_head.size
            if not was_holder:
                unheard = transaction.checkpoints.newest_signed()
        if unheard is not None:
            await self._tell(unheard)
        if newest is not None and not newest.note:
            return True
        newest_size = 0 if newest is None else newest.size
        if not was_holder:
            # Nobody knows how old it is: due at once.
            self._newest_size, self._due_s = newest_size, 0.0
        elif newest_size != self._newest_size:
            self._saw(newest_size)
        grown = size - newest_size
        is_old = asyncio.get_running_loop().time() >= self._due_s
        # A log that shrank is looked into too, and found to contradict.
        return grown < 0 or (grown > 0 and (is_forced or is_old or grown >= self._rules.records))

    async def _begin(self) -> _Begun | None:
        """Step (a): what was begun before, or else the tree of this moment, durable before the token is asked."""
        async with self._store.transaction() as transaction:
            key = self._governance.within(transaction).key(LOG_KEY)
            if key is None or not transaction.leases.take(LEASE, self._holder, self._clock(), LEASE_US):
                return None
            version = signing_version(key)
            before = transaction.checkpoints.newest_signed()
            checkpoint = _next_checkpoint(transaction, not_before(self._clock(), transaction.last_time))
            if checkpoint.note:
                return None
            transaction.keys.count_signatures({version.name: 1})
        return _Begun(checkpoint, before, version)

    async def _require_extension(self, begun: _Begun) -> None:
        """See that the tree still has what the newest note says, and what is about to be signed.

        Raises:
            ContradictionError: it does not.
        """
        for checkpoint in (begun.before, begun.checkpoint):
            if checkpoint is None:
                continue
            try:
                root_hash = await self._store.root_at(checkpoint.size)
            except LookupError as error:
                raise _contradicts(checkpoint) from error
            if root_hash != checkpoint.root_hash:
                raise _contradicts(checkpoint)

    async def _finish(self, begun: _Begun) -> Checkpoint:
        """Steps (b) and (c)."""
        checkpoint, version, origin = begun.checkpoint, begun.version, self._rules.origin
        text = CheckpointBody(origin, checkpoint.size, checkpoint.root_hash).text
        outcomes = await self._token.sign([sign_task(version, version.algorithm.to_be_signed(text.encode()))])
        if outcomes[0].status is not SignStatus.SIGNED:
            is_refused = outcomes[0].status in (SignStatus.REFUSED, SignStatus.WRONG_SIGNATURE)
            reason = Reason.TOKEN_REFUSED if is_refused else Reason.TOKEN_UNAVAILABLE
            raise SignerError(reason, f"the token did not sign the checkpoint: {outcomes[0].cause}")
        line = note_key(version, origin).line(note_signature(version, outcomes[0].signature))
        async with self._store.transaction() as transaction:
            there = transaction.checkpoints.first_signed(checkpoint.size)
            if there is not None and there.size == checkpoint.size:
                # Another holder was faster, and witnesses may have signed below its line by now.
                return there
            signed = replace(checkpoint, note=write_note(text, [line]))
            transaction.checkpoints.save_note(signed.size, signed.note, signed.witnesses)
        return signed

    async def _tell(self, checkpoint: Checkpoint) -> None:
        for observer in self._observers:
            try:
                async with asyncio.timeout(_OBSERVER_PATIENCE_S):
                    await observer(checkpoint)
            except Exception:  # noqa: BLE001 - one that fails must stop neither the others nor the next checkpoint
                _log.exception("telling of the checkpoint of %d records failed", checkpoint.size)

    def _saw(self, size: int) -> None:
        self._newest_size = size
        self._due_s = asyncio.get_running_loop().time() + self._rules.interval_s

    def _well(self) -> None:
        if self._trouble:
            _log.warning("checkpoints are being made again")
        self._pause_s, self._trouble = 0.0, ""

    def _troubled(self, error: SignerError | ContradictionError) -> None:
        is_away = isinstance(error, SignerError) and error.reason in _PASSING
        longest_s = _LONGEST_PAUSE_FOR_TOKEN_S if is_away else _LONGEST_PAUSE_S
        is_first = not self._pause_s
        self._pause_s = min(max(2 * self._pause_s, _FIRST_PAUSE_S), longest_s)
        # Said once, not every few seconds; and at a start everybody waits for the token for a moment.
        if str(error) != self._trouble and not (is_away and is_first):
            self._trouble = str(error)
            _log.log(logging.WARNING if is_away else logging.ERROR, "no checkpoint is being made: %s", error)


@dataclass(frozen=True, slots=True)
class _Begun:
    """A checkpoint whose size and root are durable, the signed one before it, and who signs."""

    checkpoint: Checkpoint
    before: Checkpoint | None
    version: KeyVersion


def _next_checkpoint(transaction: Transaction, now: Instant) -> Checkpoint:
    head, newest = transaction.tree_head, transaction.checkpoints.newest()
    if newest is not None:
        if head.size < newest.size or (head.size == newest.size and head.root_hash != newest.root_hash):
            raise _contradicts(newest)
        if not newest.note or newest.size == head.size:
            return newest
    checkpoint = Checkpoint(head.size, head.root_hash, now)
    transaction.checkpoints.insert(checkpoint)
    return checkpoint


def _contradicts(checkpoint: Checkpoint) -> ContradictionError:
    return ContradictionError(
        f"the log is not the one that the checkpoint of {checkpoint.size} records vouches for; "
        "its store was changed, or is an older copy: put the right one back"
    )
