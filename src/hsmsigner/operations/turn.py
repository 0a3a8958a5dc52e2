"""One turn of the commit cycle, as values: what one transaction decides, and what may happen once it is durable.

Nothing here waits or writes. `Turn` collects; `operations/committer.py` reads the facts before it and writes after it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from msgspec import Struct
from msgspec.structs import replace

from hsmsigner.domain import record
from hsmsigner.domain.decision import Allow, Deny, Facts, decide
from hsmsigner.domain.denial import DenialKind, DenialLedger, DenialTotal
from hsmsigner.domain.formats import SignaturePlan, plan_signature
from hsmsigner.domain.instant import MICROSECONDS_PER_SECOND, Instant
from hsmsigner.domain.key import KeyVersion, VersionName, parse_name
from hsmsigner.domain.quota import CounterId, Usage
from hsmsigner.domain.record import Entry
from hsmsigner.errors import Reason, SignerError
from hsmsigner.operations.governance import Governance
from hsmsigner.operations.jobs import Answer, Flight, Group, Job, Signed, signed
from hsmsigner.operations.ports import RequestKey, RequestState, StoredRequest


@dataclass(frozen=True, slots=True)
class TurnFacts:
    """What one transaction knows: `in_flight` are this frontend's own flights, by request."""

    now: Instant
    governance: Governance
    first_sequence: int
    retention_s: int
    in_flight: Mapping[RequestKey, Flight]
    ledger: DenialLedger
    # See `GovernanceCache.taken_out`.
    taken_out: Mapping[VersionName, int]
    # Versions whose key the token refused lately; they rest, with the reason.
    resting: Mapping[VersionName, SignerError]
    # Why the token cannot be asked at all; None when it can.
    token_fault: SignerError | None


class Refusal(Struct, frozen=True):
    """No, and the record that says so; faults that are no decision of the policy leave none."""

    error: SignerError
    entry: Entry | None = None


class Known(Struct, frozen=True):
    """Signed before: the same answer again."""

    answer: Signed


class Joined(Struct, frozen=True):
    """Being signed: wait for that one."""

    flight: Flight


class Admission(Struct, frozen=True, gc=False):
    """Yes; `resumed` is the row whose debit it signs under, None for a new debit."""

    allow: Allow
    plan: SignaturePlan
    resumed: StoredRequest | None


Verdict = Refusal | Known | Joined | Admission


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
    # Refusals that get no record of their own.
    denials: Counter[DenialKind] = field(default_factory=Counter)

    @property
    def next_sequence(self) -> int:
        """Sequence number the next entry will have."""
        return self.facts.first_sequence + len(self.entries)

    def admit(self, group: Group) -> None:
        """Decide a group; a refused all-or-nothing group leaves only its refusals behind."""
        if not group.all_or_nothing:
            for job in group.jobs:
                self._apply(job, self._judge(job, self.usage))
            return
        # Debits of the batch so far count for its later items, and are dropped with it.
        scratch = dict(self.usage)
        verdicts = [self._judge(job, scratch) for job in group.jobs]
        is_refused = any(isinstance(verdict, Refusal) for verdict in verdicts)
        for job, verdict in zip(group.jobs, verdicts, strict=True):
            self._apply(job, _aborted() if is_refused and not isinstance(verdict, Refusal) else verdict)

    def _judge(self, job: Job, usage: dict[CounterId, Usage]) -> Verdict:
        """Say what is to become of a job; changes nothing but `usage`."""
        known = self._unexpired(job.key)
        try:
            if known is None or job.validate_only:
                return self._decide(job, None, usage)
            if known.fingerprint != job.request.fingerprint():
                return _reused()
            match known.state:
                case RequestState.COMPLETED:
                    return Known(self._answer_again(job, known))
                case RequestState.AUTHORIZED:
                    return self._join(job)
                case RequestState.INTERRUPTED | RequestState.FAILED:
                    return self._decide(job, known, usage)
        except SignerError as error:
            return Refusal(error)

    def _unexpired(self, key: RequestKey) -> StoredRequest | None:
        """The row of a request; of one without a result only until its time is over, whenever it is swept away.

        The id is fresh again then, and is counted again. A signature that is still there is rather given twice.
        """
        known = self.rows.get(key)
        if known is None or known.expire_time > self.facts.now:
            return known
        return None if known.state in (RequestState.INTERRUPTED, RequestState.FAILED) else known

    def _decide(self, job: Job, resumed: StoredRequest | None, usage: dict[CounterId, Usage]) -> Verdict:
        request, governance = job.request, self.facts.governance
        facts = Facts(governance.policy, governance.key(request.key), usage)
        debited_version = "" if resumed is None else resumed.version
        decision = decide(facts, request, self.facts.now, debited_version=debited_version)
        if isinstance(decision, Deny):
            entry = None if job.validate_only else record.denied(request, decision, governance.policy.revision)
            return Refusal(decision.error(), entry)
        plan = plan_signature(decision.version, request.kind, request.body, request.output_format)
        fault = self.facts.token_fault or self.facts.resting.get(decision.version.name)
        if fault is not None:
            return Refusal(fault)
        if not job.validate_only:
            usage.update((debit.counter, debit.usage) for debit in decision.debits)
        return Admission(decision, plan, resumed)

    def _apply(self, job: Job, verdict: Verdict) -> None:
        match verdict:
            case Refusal(error, entry):
                if entry is not None:
                    self._record_denial(entry)
                self.answers.append((job, error))
            case Known(answer):
                self.answers.append((job, answer))
            case Joined(flight):
                self.joins.append((flight, job))
            case Admission():
                self._authorize(job, verdict)

    def report(self, totals: list[DenialTotal]) -> None:
        """Write the record of refusals that were only counted so far."""
        revision = self.facts.governance.policy.revision
        self.entries.extend(record.denials(total, revision) for total in totals)

    def _record_denial(self, entry: Entry) -> None:
        kind = DenialKind(*(entry.fields[name] for name in ("principal", "key", "reason")))
        counted_as = self.facts.ledger.place(kind)
        if counted_as is None:
            self.entries.append(entry)
        else:
            self.denials[counted_as] += 1

    def _authorize(self, job: Job, admission: Admission) -> None:
        request, allow, resumed, now = job.request, admission.allow, admission.resumed, self.facts.now
        lifetime_us = self.facts.retention_s * MICROSECONDS_PER_SECOND
        stored = StoredRequest(
            key=job.key,
            sequence=self.next_sequence,
            fingerprint=request.fingerprint(),
            state=RequestState.AUTHORIZED,
            version=str(allow.version.name),
            policy_revision=self.facts.governance.policy.revision,
            authorize_time=now,
            expire_time=Instant(now + lifetime_us),
        )
        if job.validate_only:
            self.answers.append((job, signed(allow.version, admission.plan, b"", stored, 0)))
            return
        self.flights[job.key] = Flight(
            request=request,
            stored=stored,
            version=allow.version,
            plan=admission.plan,
            debits=allow.debits,
            is_resumed=resumed is not None,
            waiters=[job],
        )
        self.entries.append(record.authorized(request, allow, stored.policy_revision, is_resumed=resumed is not None))
        for debit in allow.debits:
            self.usage[debit.counter] = debit.usage
            self.changed_usage.add(debit.counter)
        before = self.rows.get(job.key)
        if before is not None:
            # A row is of the authorization that is under way: a start that finds it says so of that one.
            self.forget(before)
        self.rows[job.key] = self.inserted[job.key] = stored

    def _answer_again(self, job: Job, known: StoredRequest) -> Signed:
        """P4: the stored signature, written out as the first time; the fingerprints say that it is the same request.

        The policy is not asked again: this signature was released already, and who lost the answer must get it.
        """
        version, request = self._version(known), job.request
        plan = plan_signature(version, request.kind, request.body, request.output_format)
        return signed(version, plan, plan.encode(known.signature), known, known.completed_sequence)

    def _version(self, known: StoredRequest) -> KeyVersion:
        name = parse_name(known.version)
        version = self.facts.governance.version(name) if isinstance(name, VersionName) else None
        if version is None:
            # Keys are never deleted, so the store was changed by somebody else: the frontend fails, loudly.
            raise RuntimeError(f"{known.version}, which signed record {known.sequence}, is not in the store")
        return version

    def _join(self, job: Job) -> Verdict:
        flight = self.flights.get(job.key) or self.facts.in_flight.get(job.key)
        if flight is not None:
            return Joined(flight)
        message = "this request is being signed by another frontend; retry with the same request_id"
        return Refusal(SignerError(Reason.REQUEST_IN_PROGRESS, message, retry_after_s=0.2))

    def put(self, stored: StoredRequest, **changes: object) -> StoredRequest:
        """Change a row that is durable already."""
        changed = replace(stored, **changes)
        self.rows[stored.key] = changed
        self.updated[stored.key] = changed
        return changed

    def forget(self, stored: StoredRequest) -> None:
        """Drop a durable row: the next request with that id is a new one."""
        self.rows.pop(stored.key, None)
        self.deleted.append(stored.sequence)


def _reused() -> Refusal:
    message = "this request_id was used for a different request; take a fresh one for each request"
    return Refusal(SignerError(Reason.REQUEST_ID_REUSED, message, field="request_id"))


def _aborted() -> Refusal:
    message = "not signed, since another item of this all-or-nothing batch was refused"
    return Refusal(SignerError(Reason.BATCH_ABORTED, message))
