"""Which records fit a filter: first by their kinds, in tables that are small; then by their bytes; then surely."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from sqlalchemy import ColumnElement, LargeBinary, bindparam, func, or_

from hsmsigner.domain.instant import Instant, format_instant
from hsmsigner.operations.ports import LogFilter, Outcome
from hsmsigner.store.about import fields_of
from hsmsigner.store.schema import audit_records, record_kinds

_VERSIONS = "/versions/"
# Types that announce what is about to be done. `appliance.started` says what was.
_ANNOUNCING = (".requested", "authorized", "_started")
# What the bytes of every record with this outcome hold one of. Those with DONE have nothing in common.
_MARKS = {
    Outcome.DENIED: ('"type":"sign.denied"',),
    Outcome.INTERRUPTED: ('"type":"sign.interrupted"',),
    Outcome.FAILED: ('failed"',),
    Outcome.ANNOUNCED: tuple(f'{end}"' for end in _ANNOUNCING),
}


def outcome_of(kind: str) -> Outcome:
    """How that ended which a record of this type tells of."""
    if kind == "sign.denied":
        return Outcome.DENIED
    if kind == "sign.interrupted":
        return Outcome.INTERRUPTED
    if kind.endswith("failed"):
        return Outcome.FAILED
    return Outcome.ANNOUNCED if kind.endswith(_ANNOUNCING) else Outcome.DONE


def asks_for_kinds(wanted: LogFilter) -> bool:
    """Whether the filter asks for more than times."""
    return bool(wanted.key or wanted.principal or wanted.types or wanted.outcome)


def is_of_type(kind: str, wanted: LogFilter) -> bool:
    """Whether the filter takes records of this type."""
    if wanted.outcome is not None and outcome_of(kind) is not wanted.outcome:
        return False
    return not wanted.types or any(kind.startswith(one) if one.endswith(".") else kind == one for one in wanted.types)


def kind_conditions(wanted: LogFilter, types: Iterable[str]) -> list[ColumnElement[bool]]:
    """What rows of `record_kinds` must be; `types` are all there are."""
    conditions: list[ColumnElement[bool]] = []
    if wanted.types or wanted.outcome:
        conditions.append(record_kinds.c.type.in_([kind for kind in types if is_of_type(kind, wanted)]))
    if wanted.key:
        conditions.append(record_kinds.c.key == wanted.key.partition(_VERSIONS)[0])
    if wanted.principal:
        conditions.append(record_kinds.c.principal == wanted.principal)
    return conditions


def byte_conditions(wanted: LogFilter) -> list[ColumnElement[bool]]:
    """What every record that fits has in its bytes, so that few others have to be parsed: SQL looks without the GIL."""
    conditions: list[ColumnElement[bool]] = []
    if wanted.key:
        conditions.append(has_bytes('"' + wanted.key))
    if wanted.principal:
        conditions.append(has_bytes(f'"principal":{json.dumps(wanted.principal, ensure_ascii=False)}'))
    if wanted.types:
        ends = ((one, "" if one.endswith(".") else '"') for one in wanted.types)
        conditions.append(or_(*(has_bytes(f'"type":"{one}{end}') for one, end in ends)))
    marks = _MARKS.get(wanted.outcome) if wanted.outcome else None
    if marks:
        conditions.append(or_(*map(has_bytes, marks)))
    return conditions


def has_bytes(text: str) -> ColumnElement[bool]:
    """A condition: the record's bytes hold this text."""
    needle = bindparam(None, text.encode(errors="surrogatepass"), type_=LargeBinary)
    return func.instr(audit_records.c.record, needle) > 0


def fits(record: bytes, wanted: LogFilter) -> bool:
    """Whether a record fits; what is no record fits nothing."""
    fields = fields_of(record)
    kind = fields.get("type")
    return (
        isinstance(kind, str)
        and is_of_type(kind, wanted)
        and (not wanted.principal or fields.get("principal") == wanted.principal)
        and (not wanted.key or _is_about(fields, wanted.key))
        and _is_in_time(fields.get("time"), wanted)
    )


def time_text(instant: Instant) -> str:
    """An instant as records write it, so that texts compare as times do. Nothing was written before 1970."""
    return format_instant(Instant(max(instant, 0)))


def _is_about(fields: dict[str, Any], key: str) -> bool:
    named = fields.get("key")
    if not isinstance(named, str):
        return False
    # Records of a version's life name the key, and the version in a field of its own.
    return key in (named, fields.get("version")) or named.startswith(key + _VERSIONS)


def _is_in_time(time: object, wanted: LogFilter) -> bool:
    if wanted.start_time is None and wanted.end_time is None:
        return True
    return (
        isinstance(time, str)
        and (wanted.start_time is None or time >= time_text(wanted.start_time))
        and (wanted.end_time is None or time < time_text(wanted.end_time))
    )
