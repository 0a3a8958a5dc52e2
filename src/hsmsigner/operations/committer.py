"""The commit cycle: one loop, one transaction per turn for everything that waits.

A turn loads the facts for all waiting requests, decides them in order, writes debits, records and rows together with
the outcomes that came back from the token, commits once, and only then releases answers and asks the token. So one
fsync serves many requests, quotas are exact because decision and debit are one transaction, and recovery is one rule:
an authorized request without an outcome is interrupted.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from hsmsigner.domain.decision import counters
from hsmsigner.domain.instant import Instant
from hsmsigner.domain.quota import CounterId, Usage
from hsmsigner.errors import Reason, SignerError
from hsmsigner.operations.governance import Governance, GovernanceCache
from hsmsigner.operations.jobs import Flight, Group, Landing
from hsmsigner.operations.landing import RETRY_SOON_S, land
from hsmsigner.operations.ports import RequestKey, SignStatus, Store, Token, Transaction
from hsmsigner.operations.recovery import interrupt_dangling
from hsmsigner.operations.turn import Turn, TurnFacts

_log = logging.getLogger(__name__)

MAX_TURN = 512
# What one call to the token carries: small enough that its answers come back while the next are being signed.
CHUNK = 64
# Beyond this many at the token, new requests wait in the queue, where they can still be refused or time out.
MAX_IN_FLIGHT = 1024
# With this many at the token a turn begins at most this often: a turn has a price of its own (statements, thread
# hand-overs, fsync), and one that serves ten is ten times cheaper.
BUSY = 4
ENOUGH = 64
TURN_EVERY_S = 0.005
GATHER_STEP_S = 0.0005
UNHEALTHY_S = 60.0
HEAL_EVERY_S = 1.0
EXPIRE_EVERY_S = 5.0
EXPIRE_AT_ONCE = 2000


@dataclass(frozen=True, slots=True)
class CommitterLimits:
    """Bounds of the queue, and how long results are kept."""

    queue: int = 4096
    queue_bytes: int = 64 * 2**20
    retention_s: int = 86_400


class Committer:
    """Owns the queue, the flights and the only path from a request to the token."""

    def __init__(
        self,
        store: Store,
        token: Token,
        governance: GovernanceCache,
        clock: Callable[[], Instant],
        limits: CommitterLimits,
    ) -> None:
        self._store = store
        self._token = token
        self._governance = governance
        self._clock = clock
        self._limits = limits
        self._queue: deque[Group] = deque()
        self._queued = 0
        self._queued_bytes = 0
        self._landings: deque[Landing] = deque()
        self._in_flight: dict[RequestKey, Flight] = {}
        self._unhealthy: dict[str, float] = {}
        self._calls: set[asyncio.Task[None]] = set()
        self._wake = asyncio.Event()
        self._is_stopping = False
        self._next_expiry = 0.0
        # False while the record cannot be written (P9): nothing is taken in, nothing is let out.
        self.can_record = True

    def submit(self, group: Group) -> None:
        """Queue a group; each job's future gets its answer.

        Raises:
            SignerError: QUEUE_FULL, AUDIT_UNAVAILABLE or SHUTTING_DOWN, before any work.
        """
        if self._is_stopping:
            message = "the appliance is stopping; retry with the same request_id"
            raise SignerError(Reason.SHUTTING_DOWN, message, retry_after_s=2.0)
        if not self.can_record:
            raise _cannot_record()
        count, size = len(group.jobs), group.size_bytes
        if self._queued + count > self._limits.queue or self._queued_bytes + size > self._limits.queue_bytes:
            message = "more requests are waiting than can be served soon; retry with the same request_id"
            raise SignerError(Reason.QUEUE_FULL, message, retry_after_s=RETRY_SOON_S)
        self._queue.append(group)
        self._queued += count
        self._queued_bytes += size
        self._wake.set()

    async def run(self) -> None:
        """Turn until stopped, and then until everything authorized has its outcome."""
        while not (self._is_stopping and not self._queue and not self._in_flight and not self._landings):
            await self._wake.wait()
            self._wake.clear()
            while self._landings or (self._queue and len(self._in_flight) < MAX_IN_FLIGHT):
                started_s = self._now_s()
                await self._turn()
                await self._gather(started_s)

    def stop(self) -> None:
        """Take in nothing new; `run` returns when all that was taken in is answered."""
        self._is_stopping = True
        self._wake.set()

    async def _gather(self, started_s: float) -> None:
        """Under load, let more requests and outcomes come in before the next turn; alone, a request never waits."""
        until_s = started_s + TURN_EVERY_S
        while len(self._in_flight) >= BUSY and self._queued + len(self._landings) < ENOUGH and self._now_s() < until_s:
            await asyncio.sleep(GATHER_STEP_S)

    async def _turn(self) -> None:
        groups, landings = self._take_groups(), self._take_landings()
        try:
            async with self._store.transaction() as transaction:
                turn = self._open_turn(transaction, groups, landings)
                for landing in landings:
                    land(turn, landing)
                for group in groups:
                    turn.admit(group)
                self._write(turn, transaction)
        except SignerError as error:
            _log.error("the audit log cannot be written; signing stops", exc_info=error)
            self._withhold(groups, landings)
            await self._heal()
            return
        # From here on the turn is durable: answers may leave, and the token may be asked (P2, P3).
        for landing in landings:
            self._in_flight.pop(landing.flight.stored.key, None)
            if landing.outcome.status is SignStatus.WRONG_SIGNATURE:
                self._unhealthy[str(landing.flight.version.name)] = self._now_s() + UNHEALTHY_S
        self._in_flight |= turn.flights
        for flight, job in turn.joins:
            flight.waiters.append(job)
        for waiter, answer in turn.answers:
            waiter.resolve(answer)
        self._ask_token(list(turn.flights.values()))

    def _take_groups(self) -> list[Group]:
        groups: list[Group] = []
        taken, room = 0, min(MAX_TURN, MAX_IN_FLIGHT - len(self._in_flight))
        while self._queue and taken < room:
            group = self._queue.popleft()
            taken += len(group.jobs)
            self._queued -= len(group.jobs)
            self._queued_bytes -= group.size_bytes
            group.jobs = [job for job in group.jobs if not job.answer.done()]
            groups.append(group)
        self._refuse_late(groups)
        return groups

    def _refuse_late(self, groups: list[Group]) -> None:
        now_s = self._now_s()
        for group in groups:
            if any(job.deadline is not None and job.deadline <= now_s for job in group.jobs):
                message = "the deadline passed while the request waited; nothing was counted or signed"
                for job in group.jobs:
                    job.resolve(SignerError(Reason.DEADLINE_PASSED, message))
                group.jobs = []

    def _take_landings(self) -> list[Landing]:
        taken = [self._landings.popleft() for _ in range(min(len(self._landings), MAX_TURN))]
        # After a failed commit flights are dropped and recorded as interrupted; their late outcomes count no more.
        return [landing for landing in taken if self._in_flight.get(landing.flight.stored.key) is landing.flight]

    def _open_turn(self, transaction: Transaction, groups: list[Group], landings: list[Landing]) -> Turn:
        governance = self._governance.within(transaction)
        now = Instant(max(self._clock(), transaction.last_time))
        facts = TurnFacts(
            now,
            governance,
            transaction.next_sequence,
            self._limits.retention_s,
            self._in_flight,
            self._unhealthy_now(),
            None if self._token.connected else _no_token(),
        )
        usage = self._load_usage(transaction, governance, groups, landings)
        rows = transaction.requests.find({job.key for group in groups for job in group.jobs})
        return Turn(facts, usage, rows)

    def _load_usage(
        self, transaction: Transaction, governance: Governance, groups: list[Group], landings: list[Landing]
    ) -> dict[CounterId, Usage]:
        wanted = {
            debit.counter
            for landing in landings
            if landing.outcome.status is SignStatus.NOT_CALLED
            for debit in landing.flight.debits
        }
        asked = {(job.key.principal, job.request.name): job.request for group in groups for job in group.jobs}
        for request in asked.values():
            wanted |= counters(governance.policy, governance.key(request.key), request)
        return transaction.usage.load(wanted)

    def _write(self, turn: Turn, transaction: Transaction) -> None:
        transaction.append(turn.entries, turn.facts.now)
        transaction.usage.save({counter: turn.usage[counter] for counter in turn.changed_usage})
        # Deleted first: the same turn may already have authorized the next request with that id.
        transaction.requests.delete(turn.deleted)
        transaction.requests.insert(list(turn.inserted.values()))
        transaction.keys.count_signatures(Counter(flight.version.name for flight in turn.flights.values()))
        transaction.requests.update([row for row in turn.updated.values() if row.sequence not in turn.deleted])
        if self._now_s() >= self._next_expiry:
            self._next_expiry = self._now_s() + EXPIRE_EVERY_S
            transaction.requests.delete_expired(turn.facts.now, EXPIRE_AT_ONCE)

    def _ask_token(self, flights: list[Flight]) -> None:
        for start in range(0, len(flights), CHUNK):
            call = asyncio.create_task(self._fly(flights[start : start + CHUNK]))
            self._calls.add(call)
            call.add_done_callback(self._calls.discard)

    async def _fly(self, flights: list[Flight]) -> None:
        outcomes = await self._token.sign([flight.task() for flight in flights])
        self._landings.extend(map(Landing, flights, outcomes))
        self._wake.set()

    def _withhold(self, groups: list[Group], landings: Iterable[Landing]) -> None:
        """A commit failed: nobody knows what is durable, so nothing that was under way is ever released."""
        self.can_record = False
        error = _cannot_record()
        groups += self._queue
        self._queue.clear()
        self._queued = self._queued_bytes = 0
        for job in (job for group in groups for job in group.jobs):
            job.resolve(error)
        for flight in (*self._in_flight.values(), *(landing.flight for landing in landings)):
            flight.resolve(error)
        self._in_flight.clear()
        self._landings.clear()

    async def _heal(self) -> None:
        """Open the store anew until it takes records again; a failed fsync is never retried as if nothing happened."""
        while not self.can_record and not self._is_stopping:
            await asyncio.sleep(HEAL_EVERY_S)
            try:
                await self._store.reopen()
                await interrupt_dangling(self._store, self._clock)
            except SignerError as error:
                _log.warning("the audit log still cannot be written: %s", error.message)
            else:
                self.can_record = True
                _log.warning("the audit log can be written again; signing resumes")

    def _unhealthy_now(self) -> dict[str, SignerError]:
        now_s = self._now_s()
        self._unhealthy = {name: until for name, until in self._unhealthy.items() if until > now_s}
        message = "this key's last signature did not verify; it rests for a while; tell the operators"
        return {
            name: SignerError(Reason.KEY_UNHEALTHY, message, retry_after_s=until - now_s)
            for name, until in self._unhealthy.items()
        }

    @staticmethod
    def _now_s() -> float:
        return asyncio.get_running_loop().time()


def _cannot_record() -> SignerError:
    message = "the audit log cannot be written, so nothing is signed; retry with the same request_id"
    return SignerError(Reason.AUDIT_UNAVAILABLE, message, retry_after_s=HEAL_EVERY_S)


def _no_token() -> SignerError:
    message = "the token cannot be reached; nothing was counted; retry with the same request_id"
    return SignerError(Reason.TOKEN_UNAVAILABLE, message, retry_after_s=RETRY_SOON_S)
