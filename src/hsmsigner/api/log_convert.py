"""Messages of AuditService as values, and back. Every field is checked here, once."""

from __future__ import annotations

import re
from collections.abc import Iterable

from hsmsigner.api.convert import instant, maybe_timestamp, timestamp
from hsmsigner.domain.key import parse_name
from hsmsigner.domain.signing import parse_request_id
from hsmsigner.errors import invalid_field
from hsmsigner.operations.audit import SignatureSha256, WantedRecord
from hsmsigner.operations.log_status import LogStatus
from hsmsigner.operations.ports import NO_FILTER, Checkpoint, LogFilter, Outcome
from hsmsigner.pb import audit_pb2

# Far above any log, and below what a database's integers hold.
MAX_SEQUENCE = 2**62
# A page never outgrows a gRPC message, however long the records are.
MAX_PAGE_BYTES = 2 * 2**20
_MAX_LEVEL = 62 // 8
_MAX_TYPES = 32
_MAX_PRINCIPAL = 512
_HASH_SIZE = 32
_TYPE = re.compile(r"[a-z][a-z_]{0,31}\.(?:[a-z][a-z_]{0,31})?", re.ASCII)
_OUTCOMES = {
    number: Outcome(name.removeprefix("AUDIT_OUTCOME_")) for name, number in audit_pb2.AuditOutcome.items() if number
}


def log_filter(message: audit_pb2.AuditFilter) -> LogFilter:
    """What a filter asks for.

    Raises:
        SignerError: INVALID_FIELD.
    """
    if message == audit_pb2.AuditFilter():
        return NO_FILTER
    if len(message.principal) > _MAX_PRINCIPAL:
        raise invalid_field("filter.principal", f"must have at most {_MAX_PRINCIPAL} characters")
    if len(message.types) > _MAX_TYPES:
        raise invalid_field("filter.types", f"must be at most {_MAX_TYPES}")
    for position, kind in enumerate(message.types):
        if not _TYPE.fullmatch(kind):
            raise invalid_field(
                f"filter.types[{position}]", "must be a record's type, or the beginning of one: `sign.`"
            )
    start = instant(message.start_time, "filter.start_time") if message.HasField("start_time") else None
    end = instant(message.end_time, "filter.end_time") if message.HasField("end_time") else None
    if start is not None and end is not None and end < start:
        raise invalid_field("filter.end_time", "must not be before start_time")
    return LogFilter(
        key=str(parse_name(message.key, "filter.key")) if message.key else "",
        principal=message.principal,
        types=tuple(message.types),
        outcome=_outcome(message.outcome),
        start_time=start,
        end_time=end,
    )


def _outcome(number: int) -> Outcome | None:
    if number == audit_pb2.AUDIT_OUTCOME_UNSPECIFIED:
        return None
    if number not in _OUTCOMES:
        raise invalid_field("filter.outcome", "is not an outcome this appliance knows")
    return _OUTCOMES[number]  # type: ignore[index]  # the enum's numbers are what is sent


def sequence(number: int, field: str) -> int:
    """A sequence number or a tree size.

    Raises:
        SignerError: INVALID_FIELD.
    """
    if not 0 <= number <= MAX_SEQUENCE:
        raise invalid_field(field, f"must be 0-{MAX_SEQUENCE}")
    return number


def watch_start(number: int) -> int | None:
    """Where to begin to watch; None is the next new record.

    Raises:
        SignerError: INVALID_FIELD.
    """
    return None if number == -1 else sequence(number, "start_sequence")


def tile_level(number: int) -> int:
    """A level of tiles.

    Raises:
        SignerError: INVALID_FIELD.
    """
    if number > _MAX_LEVEL:
        raise invalid_field("level", f"must be 0-{_MAX_LEVEL}")
    return number


def wanted_record(request: audit_pb2.GetInclusionProofRequest) -> WantedRecord:
    """By what the record is asked for.

    Raises:
        SignerError: INVALID_FIELD.
    """
    match request.WhichOneof("record"):
        case "sequence":
            return sequence(request.sequence, "sequence")
        case "request_id":
            return parse_request_id(request.request_id)
        case "signature_sha256":
            if len(request.signature_sha256) != _HASH_SIZE:
                raise invalid_field("signature_sha256", f"must be {_HASH_SIZE} bytes: SHA-256 of the raw signature")
            return SignatureSha256(request.signature_sha256)
        case _:
            raise invalid_field("record", "must be a `sequence`, a `request_id` or a `signature_sha256`")


def records_that_fit(records: Iterable[tuple[int, bytes]]) -> list[audit_pb2.AuditRecord]:
    """As many records, from the first on, as one message takes; at least one if there is one."""
    fitting: list[audit_pb2.AuditRecord] = []
    filled = 0
    for number, record in records:
        filled += len(record)
        if filled > MAX_PAGE_BYTES and fitting:
            break
        fitting.append(audit_pb2.AuditRecord(sequence=number, record=record))
    return fitting


def checkpoint_message(checkpoint: Checkpoint) -> audit_pb2.Checkpoint:
    """Write a checkpoint out."""
    return audit_pb2.Checkpoint(
        size=checkpoint.size,
        root_hash=checkpoint.root_hash,
        note=checkpoint.note,
        create_time=timestamp(checkpoint.time),
    )


def status_message(status: LogStatus) -> audit_pb2.GetLogStatusResponse:
    """Write the log's status out."""
    sources, newest, witnessed = status.sources, status.newest_checkpoint, status.newest_witnessed
    head = audit_pb2.TreeHead(size=status.tree_head.size, root_hash=status.tree_head.root_hash)
    return audit_pb2.GetLogStatusResponse(
        origin=status.origin,
        tree_head=head,
        newest_checkpoint=None if newest is None else checkpoint_message(newest),
        newest_witnessed=None if witnessed is None else checkpoint_message(witnessed),
        quorum=sources.quorum,
        witnesses=[
            audit_pb2.WitnessStatus(
                name=one.name,
                cosigned_size=one.cosigned_size,
                cosign_time=maybe_timestamp(one.cosign_time),
                fault=one.fault,
            )
            for one in sources.witnesses()
        ],
        pushes=[
            audit_pb2.PushStatus(
                target=one.target,
                pushed_size=one.pushed_size,
                push_time=maybe_timestamp(one.push_time),
                fault=one.fault,
            )
            for one in sources.pushes()
        ],
        remembered_size=sources.remembered_size(),
        first_sequence=status.first_sequence,
        is_fail_closed=sources.is_fail_closed,
    )
