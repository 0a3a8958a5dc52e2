"""What a turn does with an answer of the token: the lower half of the crash table in docs/architecture.md."""

from __future__ import annotations

import hashlib

from hsmsigner.domain import record
from hsmsigner.domain.key import KeyState
from hsmsigner.domain.quota import give_back
from hsmsigner.errors import Reason, SignerError
from hsmsigner.operations.jobs import Answer, Flight, Landing, signed
from hsmsigner.operations.ports import RequestState, SignOutcome, SignStatus
from hsmsigner.operations.turn import Turn

RETRY_SOON_S = 0.5


def record_outcome(turn: Turn, landing: Landing) -> None:
    """Record how an authorization ended, and prepare the answer that goes out once the record is durable (P3)."""
    flight, outcome = landing.flight, landing.outcome
    match outcome.status:
        case SignStatus.SIGNED:
            answer = _complete(turn, flight, outcome)
        case SignStatus.NOT_CALLED:
            answer = _return_debit(turn, flight, outcome)
        case SignStatus.REFUSED:
            message = "the token refused to sign; the debit is kept, a retry with the same request_id signs under it"
            answer = _fail(turn, flight, Reason.TOKEN_REFUSED, message, outcome.cause)
        case SignStatus.WRONG_SIGNATURE:
            message = "the token's answer did not verify under the key and was withheld"
            answer = _fail(turn, flight, Reason.SIGNATURE_INVALID, message, outcome.cause)
        case SignStatus.UNKNOWN:
            answer = _interrupt(turn, flight, outcome)
    turn.answers.append((flight, answer))


def _complete(turn: Turn, flight: Flight, outcome: SignOutcome) -> Answer:
    if flight.stored.sequence < turn.facts.taken_out.get(flight.version.name, 0):
        return _withhold(turn, flight)
    try:
        signature = flight.plan.encode(outcome.signature)
    except SignerError as error:
        return _fail(turn, flight, error.reason, error.message, "encoding")
    sequence = turn.next_sequence
    _record(turn, flight, "completed", signature_sha256=hashlib.sha256(signature).hexdigest())
    stored = turn.put(
        flight.stored, state=RequestState.COMPLETED, signature=outcome.signature, completed_sequence=sequence
    )
    return signed(flight.version, flight.plan, signature, stored, sequence)


def _withhold(turn: Turn, flight: Flight) -> Answer:
    _record(turn, flight, "interrupted", cause="withheld: the version was taken out of use while the token signed")
    turn.put(flight.stored, state=RequestState.INTERRUPTED)
    version = turn.facts.governance.version(flight.version.name)
    observed = "" if version is None else version.state.value
    message = f"{flight.version.name} was taken out of use while the token signed; the signature was withheld"
    facts = {"rule": "key-state", "observed": observed, "limit": KeyState.ACTIVE.value}
    return SignerError(Reason.KEY_NOT_ACTIVE, message, metadata=facts)


def _return_debit(turn: Turn, flight: Flight, outcome: SignOutcome) -> Answer:
    reason = Reason.TOKEN_UNAVAILABLE.value
    message = "the token could not be asked; nothing was counted; retry with the same request_id"
    if flight.is_resumed:
        # The first try may have signed: its debit stays, and so does the row that remembers it and this version.
        _record(turn, flight, "failed", reason=reason, cause=outcome.cause)
        turn.put(flight.stored, state=RequestState.INTERRUPTED)
        message = "the token could not be asked; retry with the same request_id, which is not counted again"
    else:
        _record(turn, flight, "failed", reason=reason, cause=outcome.cause, debit_returned=True)
        for debit in flight.debits:
            turn.usage[debit.counter] = give_back(debit.quota, turn.usage[debit.counter], flight.stored.authorize_time)
            turn.changed_usage.add(debit.counter)
        turn.forget(flight.stored)
    return SignerError(Reason.TOKEN_UNAVAILABLE, message, retry_after_s=RETRY_SOON_S)


def _fail(turn: Turn, flight: Flight, reason: Reason, message: str, cause: str) -> Answer:
    _record(turn, flight, "failed", reason=reason.value, cause=cause)
    turn.put(flight.stored, state=RequestState.FAILED)
    return SignerError(reason, message)


def _interrupt(turn: Turn, flight: Flight, outcome: SignOutcome) -> Answer:
    _record(turn, flight, "interrupted", cause=outcome.cause)
    turn.put(flight.stored, state=RequestState.INTERRUPTED)
    message = (
        "the token was lost while signing; nothing was released; "
        "retry with the same request_id, which is not counted again"
    )
    return SignerError(Reason.SIGNATURE_INTERRUPTED, message, retry_after_s=RETRY_SOON_S)


def _record(turn: Turn, flight: Flight, kind: str, **more: object) -> None:
    request = flight.request
    turn.entries.append(
        record.outcome(
            kind,
            request.principal.text,
            request.request_id,
            flight.stored.version,
            flight.stored.sequence,
            **more,
        )
    )
