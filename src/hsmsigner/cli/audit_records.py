"""Records of the log as people read them."""

from __future__ import annotations

import json

from hsmsigner.verifier import VerificationError

_ALWAYS_THERE = ("sequence", "time", "type", "previous_hash")
_SHOWN_FIRST = ("principal", "key", "reason", "rule")


def parsed(sequence: int, record: bytes) -> dict[str, object]:
    """The fields of a record.

    Raises:
        VerificationError: it is no JSON object.
    """
    try:
        fields = json.loads(record)
    except ValueError as error:
        message = f"record {sequence} cannot be read as JSON: `hsmsigner audit verify` tells more"
        raise VerificationError("unparsable", sequence, message) from error
    if not isinstance(fields, dict):
        raise VerificationError("unparsable", sequence, f"record {sequence} is not a JSON object")
    return {"sequence": sequence, **fields}


def summary(fields: dict[str, object]) -> str:
    """What a record says besides number, time and type; the values that matter first, long ones cut."""
    names = [name for name in _SHOWN_FIRST if name in fields]
    names += [name for name in fields if name not in (*_SHOWN_FIRST, *_ALWAYS_THERE)]
    shown = []
    for name in names[:5]:
        value = fields[name]
        text = value if isinstance(value, str) else json.dumps(value)
        shown.append(f"{name}={text[:48]}{'…' if len(text) > 48 else ''}")  # noqa: PLR2004 - as many as fit
    return " ".join(shown)
