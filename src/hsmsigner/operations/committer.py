"""The commit cycle: one loop, one transaction per turn for everything that waits.

A turn loads the facts for all waiting requests, records the outcomes that came back from the token, decides the
requests in order, commits once, and only then releases answers and asks the token. So one fsync serves many requests,
quotas are exact because decision and debit are one transaction, and recovery is one rule: an authorized request without
an outcome is interrupted.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from hsmsigner.domain.decision import counters
from hsmsigner.domain.instant import Instant, not_before
from hsmsigner.domain.quota import CounterId, Usage
from hsmsigner.errors import Reason, SignerError, cannot_record
from hsmsigner.operations.denials import DenialPeriods
from hsmsigner.operations.governance import Governance, GovernanceCache
from hsmsigner.operations.jobs import Flight, Group, Landing
from hsmsigner.operations.landing import RETRY_SOON_S, record_outcome
from hsmsigner.operations.ports import RequestKey, SignStatus, Store, Token, Transaction
from hsmsigner.operations.queue import RequestQueue, still_wanted
from hsmsigner.operations.recovery import interrupt_dangling, record_resumption
from hsmsigner.operations.resting import RestingVersions
from hsmsigner.operations.turn import Turn, TurnFacts

_log = logging.getLogger(__name__)

MAX_TURN = 512
# What one call to the token carries: small enough that its answers come back while the next are being signed.
CHUNK = 64
# Beyond this many at the token, new requests wait in the queue, where they can still be refused or time out.
MAX_IN_FLIGHT = 1024
# A turn has a price of its own (statements, thread hand-overs, fsync), and one that serves ten is ten times cheaper. So
# with this many at the token a turn begins only when enough has gathered for it, or when this long has passed.
PACED_FROM = 4
ENOUGH_FOR_A_TURN = 32
PACE_S = 0.003
HEAL_EVERY_S = 1.0
EXPIRE_EVERY_S = 5.0
EXPIRE_AT_ONCE = 2000

# Says why nothing may be signed now; None when it may.
Gate = Callable[[], SignerError | None]


@dataclass(frozen=True, slots=True)
class CommitterLimits:
    """Bounds of the queue, and how long results are kept."""

    queue: int
    queue_bytes: int
    retention_s: int


class Committer:
    """Owns the queue, the flights and the only path from a request to the token."""

    def __init__(
        self,
        store: Store,
        token: Token,
        governance: GovernanceCache,
        clock: Callable[[], Instant],
        limits: CommitterLimits,
        *,
        gates: Sequence[Gate] = (),
    ) -> None:
        self._gates = gates
        self._store = store
        self._token = token
        self._governance = governance
        self._clock = clock
        self._retention_s = limits.retention_s
        self._queue = RequestQueue(limits.queue, limits.queue_bytes)
        self._landings: deque[Landing] = deque()
        self._in_flight: dict[RequestKey, Flight] = {}
        self._resting = RestingVersions()
        self._calls: set[asyncio.Task[None]] = set()
        self._wake = asyncio.Event()
        self._enough = asyncio.Event()
        self._is_stopping = False
        self._next_expiry_s = 0.0
        self._denials = DenialPeriods(self._wake.set)
        # False while the record cannot be written (P9): nothing is taken in, nothing is let out.
        self.can_record = True
        self._stop_time = Instant(0)

    def submit(self, group: Group) -> None:
        """Queue a group; each job's `on_answer` gets its answer.

        Raises:
            SignerError: QUEUE_FULL, AUDIT_UNAVAILABLE or SHUTTING_DOWN, or what a gate says; before any work.
        """
        if self._is_stopping:
            message = "the appliance is stopping; retry with the same request_id"
            raise SignerError(Reason.SHUTTING_DOWN, message, retry_after_s=2.0)
        if not self.can_record:
            raise cannot_record()
        for gate in self._gates:
            if (refusal := gate()) is not None:
                raise refusal
        self._queue.add(group)
        self._stir()

    async def run(self) -> None:
        """Turn until stopped, and then until everything authorized has its outcome."""
        while not (self._is_stopping and not self._queue and not self._in_flight and not self._landings):
            await self._wake.wait()
            self._wake.clear()
            while self._has_work():
                started_s = _now_s()
                await self._turn()
                await self._pace(started_s + PACE_S)

    def _has_work(self) -> bool:
        has_room = len(self._in_flight) < MAX_IN_FLIGHT
        return bool(self._landings) or (bool(self._queue) and has_room) or self._denials.is_over

    def stop(self) -> None:
        """Take in nothing new; `run` returns when all that was taken in is answered."""
        self._is_stopping = True
        self._wake.set()

    async def _turn(self) -> None:
        landings = self._take_landings()
        groups = self._queue.take(min(MAX_TURN, MAX_IN_FLIGHT - len(self._in_flight)))
        try:
            async with self._store.transaction() as transaction:
                # Here and not before: the store may have been another's for seconds.
                groups = still_wanted(groups, _now_s())
                turn = self._gather_facts(transaction, groups, landings)
                is_reported = self._denials.report_within(transaction, turn)
                # Outcomes first: a debit that comes back has room for a request of the same turn, and a retry that
                # waits beside its own outcome finds it.
                for landing in landings:
                    record_outcome(turn, landing)
                for group in groups:
                    turn.admit(group)
                self._write(turn, transaction)
        except SignerError as error:
            _log.error("the audit log cannot be written; signing stops", exc_info=error)
            self._withhold(groups)
            await self._heal()
            return
        # Here the turn is durable. Not before may an answer leave (P3) or the token be asked (P2).
        self._denials.committed(turn, is_reported=is_reported)
        self._release(turn, landings)
        self._ask_token(list(turn.flights.values()))

    def _gather_facts(self, transaction: Transaction, groups: list[Group], landings: list[Landing]) -> Turn:
        governance = self._governance.within(transaction)
        facts = TurnFacts(
            now=not_before(self._clock(), transaction.last_time),
            governance=governance,
            first_sequence=transaction.next_sequence,
            retention_s=self._retention_s,
            in_flight=self._in_flight,
            ledger=self._denials.ledger,
            taken_out=self._governance.taken_out,
            resting=self._resting.refusals(_now_s()),
            token_fault=None if self._token.connected else _no_token(),
        )
        rows = transaction.requests.find({job.key for group in groups for job in group.jobs})
        return Turn(facts, _load_usage(transaction, governance, groups, landings), rows)

    def _write(self, turn: Turn, transaction: Transaction) -> None:
        transaction.append(turn.entries, turn.facts.now)
        transaction.denials.add(turn.denials, turn.facts.now)
        transaction.usage.save({counter: turn.usage[counter] for counter in turn.changed_usage})
        # Deleted first: the same turn may already have authorized the next request with that id.
        transaction.requests.delete(turn.deleted)
        transaction.requests.insert(list(turn.inserted.values()))
        transaction.keys.count_signatures(Counter(flight.version.name for flight in turn.flights.values()))
        transaction.requests.update([row for row in turn.updated.values() if row.sequence not in turn.deleted])
        if _now_s() >= self._next_expiry_s:
            self._next_expiry_s = _now_s() + EXPIRE_EVERY_S
            transaction.requests.delete_expired(turn.facts.now, EXPIRE_AT_ONCE)

    def _release(self, turn: Turn, landings: list[Landing]) -> None:
        for landing in landings:
            del self._in_flight[landing.flight.stored.key]
            if landing.outcome.status is SignStatus.WRONG_SIGNATURE:
                self._resting.rest(landing.flight.version.name, _now_s())
        self._in_flight |= turn.flights
        for flight, job in turn.joins:
            flight.waiters.append(job)
        for waiter, answer in turn.answers:
            waiter.resolve(answer)

    def _ask_token(self, flights: list[Flight]) -> None:
        for start in range(0, len(flights), CHUNK):
            call = asyncio.create_task(self._ask(flights[start : start + CHUNK]))
            self._calls.add(call)
            call.add_done_callback(self._calls.discard)

    async def _ask(self, flights: list[Flight]) -> None:
        outcomes = await self._token.sign([flight.task() for flight in flights])
        self._landings.extend(map(Landing, flights, outcomes))
        self._stir()

    def _take_landings(self) -> list[Landing]:
        taken = [self._landings.popleft() for _ in range(min(len(self._landings), MAX_TURN))]
        # After a failed commit flights are dropped and recorded as interrupted; their late outcomes count no more.
        return [landing for landing in taken if self._in_flight.get(landing.flight.stored.key) is landing.flight]

    def _stir(self) -> None:
        self._wake.set()
        if len(self._queue) + len(self._landings) >= ENOUGH_FOR_A_TURN:
            self._enough.set()

    async def _pace(self, until_s: float) -> None:
        """Under load, let more requests and outcomes come in before the next turn; alone, a request never waits."""
        self._enough.clear()
        if len(self._in_flight) < PACED_FROM or len(self._queue) + len(self._landings) >= ENOUGH_FOR_A_TURN:
            return
        with suppress(TimeoutError):
            async with asyncio.timeout_at(until_s):
                await self._enough.wait()

    def _withhold(self, groups: list[Group]) -> None:
        """A commit failed: nobody knows what is durable, so nothing that was under way is ever released."""
        self.can_record, self._stop_time = False, self._clock()
        error = cannot_record()
        for group in groups + self._queue.take_all():
            for job in group.jobs:
                job.resolve(error)
        for flight in self._in_flight.values():
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
                await record_resumption(self._store, self._clock, self._stop_time)
            except SignerError as error:
                _log.warning("the audit log still cannot be written: %s", error.message)
            else:
                self.can_record = True
                _log.warning("the audit log can be written again; signing resumes")


def _load_usage(
    transaction: Transaction, governance: Governance, groups: list[Group], landings: list[Landing]
) -> dict[CounterId, Usage]:
    """The counters that this turn may look at: of every key and principal that asks, and of debits that come back."""
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


def _no_token() -> SignerError:
    message = "the token cannot be reached; nothing was counted; retry with the same request_id"
    return SignerError(Reason.TOKEN_UNAVAILABLE, message, retry_after_s=RETRY_SOON_S)


def _now_s() -> float:
    return asyncio.get_running_loop().time()
