"""Anti-rollback: the log is held against what the token remembers of it, and the token is told how the log grows.

Whoever puts an older copy of the store in place makes the appliance forget records, quotas and checkpoints. The token
is not in that copy: it remembers size and root of a state that the log once had, and any later one must begin with it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass

from hsmsigner.domain.instant import Instant, not_before
from hsmsigner.domain.record import Entry
from hsmsigner.errors import ConfigurationError, Reason, SignerError
from hsmsigner.operations.contradiction import Contradiction, compare
from hsmsigner.operations.guarded_token import GuardedToken
from hsmsigner.operations.ports import Checkpoint, Store, TreeHead

_log = logging.getLogger(__name__)

# Before the first comparison nothing is signed: it must come soon after the token does.
FIRST_LOOK_EVERY_S = 0.05
LOOK_EVERY_S = 1.0
_STOP_PATIENCE_S = 5.0


class LogRolledBackError(ConfigurationError):
    """The log is not the one the token remembers. No restart cures it; the text says both figures and the ways out."""


@dataclass(frozen=True, slots=True)
class MemoryRules:
    """The log's name, how often the token is told, and why a rollback is accepted (empty: it is not)."""

    origin: str
    interval_s: float
    accepted_reason: str = ""


class TokenMemory:
    """Opens the guard of the token once the log fits, and closes it when it does not."""

    def __init__(self, store: Store, token: GuardedToken, clock: Callable[[], Instant], rules: MemoryRules) -> None:
        self._store = store
        self._token = token
        self._clock = clock
        self._rules = rules
        # Used once: what a later token remembers is another matter.
        self._accepted_reason = rules.accepted_reason
        # The log as it was after the rollback was recorded; the token is still to be told.
        self._accepted: TreeHead | None = None
        # Which connection's token was compared with; 0 is none.
        self._compared = 0
        self._newest: TreeHead | None = None
        self._next_s = 0.0
        # Records that the token remembers; 0 when it was not asked yet.
        self.remembered_size = 0

    async def run(self) -> None:
        """Compare when a token comes, and tell it of the log, until cancelled.

        Raises:
            LogRolledBackError: the log is not the one that the token remembers.
            LogDamagedError: the log's tree cannot be read.
        """
        while True:
            try:
                await self.round()
            except SignerError as error:
                _log.warning("log and token cannot be compared now: %s", error.message)
            await asyncio.sleep(LOOK_EVERY_S if self._compared else FIRST_LOOK_EVERY_S)

    async def round(self) -> None:
        """Do what is due once.

        Raises:
            SignerError: TOKEN_UNAVAILABLE, AUDIT_UNAVAILABLE; it is tried again in the next round.
            LogRolledBackError: as in `run`.
        """
        if not self._token.connected:
            return
        connections = self._token.connections
        if connections != self._compared:
            await self._compare()
            self._compared = connections
        if self._newest is not None and asyncio.get_running_loop().time() >= self._next_s:
            await self._remember(self._newest)

    async def on_signed(self, checkpoint: Checkpoint) -> None:
        """Take note of a checkpoint that was signed; the token is told within `interval_s`."""
        if self._newest is None or checkpoint.size > self._newest.size:
            self._newest = TreeHead(checkpoint.size, checkpoint.root_hash)

    async def finish(self) -> None:
        """Tell the token how the log ends, checkpoint or not: the appliance stops in order."""
        if self._token.refusal() is not None or not self._token.connected:
            return
        try:
            async with asyncio.timeout(_STOP_PATIENCE_S):
                head, _ = await self._read_head()
                await self._remember(head)
        except (SignerError, TimeoutError):
            _log.warning("the token was not told how the log ends; it remembers an older state, which is no fault")

    async def _compare(self) -> None:
        remembered = await self._token.recall(self._rules.origin)
        found, newest = await self._read_head()
        root_then = b""
        if remembered is not None and remembered.size <= found.size:
            root_then = await self._store.root_at(remembered.size)
        self.remembered_size = 0 if remembered is None else remembered.size
        contradiction = compare(remembered, found, root_then)
        if contradiction is not None:
            await self._accept_or_refuse(contradiction)
        elif remembered is None:
            await self._begin_to_remember(found, newest)
        if self._accepted_reason:
            _log.warning("there was no rollback to accept")
            self._accepted_reason = ""
        if newest is not None:
            await self.on_signed(newest)
        self._token.open()
        _log.info("the log is the one that the token remembers", extra={"remembered_size": self.remembered_size})

    async def _accept_or_refuse(self, contradiction: Contradiction) -> None:
        self._token.close()
        if not self._accepted_reason:
            raise LogRolledBackError(str(contradiction))
        if self._accepted is None:
            self._accepted = await self._record_acceptance(contradiction)
        await self._token.remember(self._rules.origin, self._accepted, is_rollback=True)
        _log.warning("%s; accepted: %s", contradiction.what, self._accepted_reason)
        self.remembered_size = self._accepted.size
        self._accepted_reason, self._accepted, self._newest = "", None, None

    async def _record_acceptance(self, contradiction: Contradiction) -> TreeHead:
        fields = {
            "kind": contradiction.kind.value,
            "remembered_size": contradiction.remembered.size,
            "remembered_root": contradiction.remembered.root_hash.hex(),
            "found_size": contradiction.found.size,
            "found_root": contradiction.found.root_hash.hex(),
            "reason": self._accepted_reason,
        }
        return await self._append(Entry("log.rollback_accepted", fields))

    async def _begin_to_remember(self, found: TreeHead, newest: Checkpoint | None) -> None:
        head = found
        if newest is not None:
            status = await self._token.status()
            _log.warning(
                "the token remembers nothing of this log, which has checkpoints: was it replaced? The keys of the old "
                "one are not on it either; see `hsmsigner doctor`"
            )
            fields = {
                "found_size": found.size,
                "found_root": found.root_hash.hex(),
                "checkpoint_size": newest.size,
                "token": status.label,
                "token_serial": status.serial,
            }
            head = await self._append(Entry("log.memory_missing", fields))
        # At once and without a checkpoint: from its first second on, a log that vanishes is missed.
        await self._remember(head)

    async def _append(self, entry: Entry) -> TreeHead:
        async with self._store.transaction() as transaction:
            transaction.append([entry], not_before(self._clock(), transaction.last_time))
            return transaction.tree_head

    async def _read_head(self) -> tuple[TreeHead, Checkpoint | None]:
        async with self._store.transaction() as transaction:
            return transaction.tree_head, transaction.checkpoints.newest_signed()

    async def _remember(self, head: TreeHead) -> None:
        if head.size <= self.remembered_size:
            return
        self._next_s = asyncio.get_running_loop().time() + self._rules.interval_s
        try:
            await self._token.remember(self._rules.origin, head)
        except SignerError as error:
            if error.reason is Reason.TOKEN_REFUSED:
                # Another frontend told it more, or another appliance something else: which, the next round finds out.
                self._compared = 0
                return
            raise
        self.remembered_size = head.size
