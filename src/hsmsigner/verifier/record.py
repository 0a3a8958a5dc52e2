"""Reading one record: strictly, for what reads differently in different parsers proves nothing."""

from __future__ import annotations

import json
import re
from calendar import timegm
from datetime import datetime
from functools import lru_cache
from typing import Any

from hsmsigner.verifier.fault import VerificationError, shown

# Fixed width in UTC, so that the order of the texts is the order of the times.
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", re.ASCII)
# Far beyond any record of ours. Not left to Python's recursion limit: a library that raised it would turn the
# RecursionError of a hostile record into a crash of the process.
_DEEPEST = 100
# Values take up to thirty times the memory of their text; of those in 64 KiB that does no harm. The largest policy has
# a third of this many.
_HARMLESS = 2**16
_MOST_PARTS = 250_000
# A whole string, closed or not, so that one pass over any text finds the signs that stand outside of strings.
_STRING_OR_SIGN = re.compile(r'"(?:[^"\\]|\\.)*"?|[\[\]{},]', re.DOTALL)


def parse_record(sequence: int, record: bytes) -> dict[str, Any]:
    """The fields of a record.

    Raises:
        VerificationError: `unparsable`.
    """
    try:
        return parse_object(record)
    except ValueError as error:
        message = f"record {sequence} cannot be read as a JSON object: {shown(str(error))}"
        raise VerificationError("unparsable", sequence, message) from error


def parse_object(content: bytes) -> dict[str, Any]:
    """Read one JSON object; no field twice, nothing nested too deeply, nothing of too many parts.

    Raises:
        ValueError: it is none.
    """
    text = content.decode().strip()
    if len(text) > _HARMLESS or text.count("[") + text.count("{") > _DEEPEST:
        _refuse_sprawling(text)
    fields, end = _decode(text)
    if end != len(text):
        raise ValueError("it goes on after its end")
    if not isinstance(fields, dict):
        raise ValueError("it is no object")  # noqa: TRY004 - one kind of error for all that it may be
    return fields


@lru_cache(maxsize=64)
def _seconds(text: str) -> int:
    return timegm(datetime.strptime(text, "%Y-%m-%dT%H:%M:%S").timetuple())  # noqa: DTZ007 - `Z` stands behind it


def microseconds(time: str) -> int:
    """A time that fits `TIME`, as microseconds since 1970.

    Raises:
        ValueError: there is no such day or hour.
    """
    return _seconds(time[:19]) * 1_000_000 + int(time[20:26])


def _refuse_sprawling(text: str) -> None:
    depth = parts = 0
    for match in _STRING_OR_SIGN.finditer(text):
        sign = match[0]
        if sign[0] == '"':
            continue
        parts += 1
        depth += (sign in "[{") - (sign in "]}")
        if depth > _DEEPEST:
            raise ValueError("nested too deeply")
        if parts > _MOST_PARTS:
            raise ValueError("it has too many parts")


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    # A field given twice reads differently in different parsers.
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("a field stands twice")
    return fields


def _no_constant(text: str) -> object:
    raise ValueError(f"{text} is no JSON")


# One decoder, made once: json.loads with options builds a new one for every call.
_decode = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_no_constant).raw_decode
