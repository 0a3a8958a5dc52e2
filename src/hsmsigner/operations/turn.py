"""One turn of the commit cycle, as values: what one transaction decides, and what may happen once it is durable.

Nothing here waits or writes. `Turn` collects; `operations/committer.py` reads the facts before it and writes after it.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass, field, fields, replace

from hsmsigner.domain import record
from hsmsigner.domain.decision import Allow, Deny, Facts, decide
from hsmsigner.domain.formats import plan_signature
from hsmsigner.domain.instant import MICROSECONDS_PER_SECOND, Instant
from hsmsigner.domain.key import KeyVersion, VersionName, parse_name
from hsmsigner.domain.quota import CounterId, Usage
from hsmsigner.domain.record import Entry
from hsmsigner.errors import Reason, SignerError
from hsmsigner.operations.governance import Governance
from hsmsigner.operations.jobs import Answer, Flight, Group, Job, signed
from hsmsigner.operations.ports import RequestKey, RequestState, StoredRequest


@dataclass(frozen=True, slots=True)
class TurnFacts:
    """What one transaction knows: `in_flight` are this frontend's own flights, by request."""

    now: Instant
    governance: Governance
    first_sequence: int
    retention_s: int
    in_flight: Mapping[RequestKey, Flight]
    # Versions that must not sign now, with the reason; None when the token can be asked at all.
    unhealthy: Mapping[str, SignerError]
    token_fault: SignerError | None


@dataclass(slots=True)
class Turn:
    """Effects of one transaction, in order. `usage` and `rows` also are the facts that later items of the turn see."""

    facts: TurnFacts
    usage: dict[CounterId, Usage]
    rows: dict[RequestKey, StoredRequest]
    entries: list[Entry] = field(default_factory=list)
    changed_usage: set[CounterId] = field(default_factory=set)
    inserted: dict[RequestKey, StoredRequest] = field(default_factory=dict)
    updated: dict[RequestKey, StoredRequest] = field(default_factory=dict)
    deleted: list[int] = field(default_factory=list)
    flights: dict[RequestKey, Flight] = field(default_factory=dict)
    answers: list[tuple[Job | Flight, Answer]] = field(default_factory=list)
    joins: list[tuple[Flight, Job]] = field(default_factory=list)

    @property
    def next_sequence(self) -> int:
        """Sequence number the next entry will have."""
        return self.facts.first_sequence + len(self.entries)

    def admit(self, group: Group) -> None:
        """Decide a group; a refused all-or-nothing group leaves only its refusals behind."""
        if not group.all_or_nothing:
            for job in group.jobs:
                self.admit_one(job)
            return
        trial = self._fork()
        for job in group.jobs:
            trial.admit_one(job)
        refused = {id(job) for job, answer in trial.answers if isinstance(answer, SignerError)}
        if not refused:
            self._adopt(trial)
            return
        self.entries += [entry for entry in trial.entries[len(self.entries) :] if entry.type == record.DENIED]
        self.answers += [(job, answer) for job, answer in trial.answers[len(self.answers) :] if id(job) in refused]
        message = "not signed, since another item of this all-or-nothing batch was refused"
        aborted = SignerError(Reason.BATCH_ABORTED, message)
        self.answers += [(job, aborted) for job in group.jobs if id(job) not in refused]

    def _fork(self) -> Turn:
        containers = {item.name: copy(getattr(self, item.name)) for item in fields(self) if item.name != "facts"}
        return Turn(self.facts, **containers)

    def _adopt(self, trial: Turn) -> None:
        for item in fields(self):
            setattr(self, item.name, getattr(trial, item.name))

    def admit_one(self, job: Job) -> None:
        """Decide one job on its own."""
        try:
            known = self.rows.get(job.key)
            if known is None or job.validate_only:
                self._decide(job, None)
            elif known.fingerprint != job.request.fingerprint():
                raise _reused()
            elif known.state is RequestState.COMPLETED:
                self._answer_again(job, known)
            elif known.state is RequestState.AUTHORIZED:
                self._join(job)
            else:
                self._decide(job, known)
        except SignerError as error:
            self.answers.append((job, error))

    def _decide(self, job: Job, resumed: StoredRequest | None) -> None:
        request, governance = job.request, self.facts.governance
        facts = Facts(governance.policy, governance.key(request.key), self.usage)
        match decide(facts, request, self.facts.now, is_debited=resumed is not None):
            case Deny() as deny:
                if not job.validate_only:
                    self.entries.append(record.denied(request, deny, governance.policy.revision))
                raise deny.error()
            case Allow() as allow:
                self._allow(job, allow, resumed)

    def _allow(self, job: Job, allow: Allow, resumed: StoredRequest | None) -> None:
        request, version, now = job.request, allow.version, self.facts.now
        plan = plan_signature(version, request.kind, request.body, request.output_format)
        fault = self.facts.token_fault or self.facts.unhealthy.get(str(version.name))
        if fault is not None:
            raise fault
        stored = StoredRequest(
            job.key,
            self.next_sequence if resumed is None else resumed.sequence,
            request.fingerprint(),
            RequestState.AUTHORIZED,
            str(version.name),
            self.facts.governance.policy.revision,
            now,
            Instant(now + self.facts.retention_s * MICROSECONDS_PER_SECOND) if resumed is None else resumed.expire_time,
        )
        if job.validate_only:
            self.answers.append((job, signed(version, plan, b"", stored, 0)))
            return
        flight = Flight(
            request, stored, version, plan, allow.debits, self.next_sequence, resumed is not None, waiters=[job]
        )
        self.entries.append(record.authorized(request, allow, stored.policy_revision, is_resumed=resumed is not None))
        for debit in allow.debits:
            self.usage[debit.counter] = debit.usage
            self.changed_usage.add(debit.counter)
        self.rows[job.key] = stored
        (self.inserted if resumed is None else self.updated)[job.key] = stored
        self.flights[job.key] = flight

    def _answer_again(self, job: Job, known: StoredRequest) -> None:
        """P4: the stored signature, written out as the first time; the fingerprints say that it is the same request."""
        version, request = self._version(known), job.request
        plan = plan_signature(version, request.kind, request.body, request.output_format)
        signature = plan.encode(known.signature)
        self.answers.append((job, signed(version, plan, signature, known, known.completed_sequence)))

    def _version(self, known: StoredRequest) -> KeyVersion:
        name = parse_name(known.version)
        version = self.facts.governance.version(name) if isinstance(name, VersionName) else None
        if version is None:
            raise SignerError(Reason.INTERNAL, "the version that signed this request is not in the store")
        return version

    def _join(self, job: Job) -> None:
        flight = self.flights.get(job.key) or self.facts.in_flight.get(job.key)
        if flight is None:
            message = "this request is being signed by another frontend; retry with the same request_id"
            raise SignerError(Reason.REQUEST_IN_PROGRESS, message, retry_after_s=0.2)
        self.joins.append((flight, job))

    def put(self, stored: StoredRequest, **changes: object) -> StoredRequest:
        """Change a row that is durable already."""
        changed = replace(stored, **changes)  # type: ignore[arg-type]  # the callers' keywords are the row's fields
        self.rows[stored.key] = changed
        self.updated[stored.key] = changed
        return changed

    def forget(self, stored: StoredRequest) -> None:
        """Drop a durable row: the next request with that id is a new one."""
        self.rows.pop(stored.key, None)
        self.deleted.append(stored.sequence)


def _reused() -> SignerError:
    message = "this request_id was used for a different request; take a fresh one for each request"
    return SignerError(Reason.REQUEST_ID_REUSED, message, field="request_id")
