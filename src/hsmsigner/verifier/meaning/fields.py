"""Fields of a record, as their type demands them."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from hsmsigner.verifier.fault import VerificationError, shown
from hsmsigner.verifier.record import TIME, microseconds

Fields = dict[str, Any]
# Takes a record's number, its fields and its time in microseconds; raises VerificationError.
Judge = Callable[[int, Fields, int], None]

# Several times an RSA-4096 key in hex: what rules remember and match must not be as long as a line may be.
_LONGEST = 4096
_VERSION = re.compile(r"(?P<key>keys/[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?)/versions/(?P<number>[1-9][0-9]{0,8})", re.ASCII)


def text(sequence: int, fields: Fields, name: str, longest: int = _LONGEST) -> str:
    """A field that is a text of at most `longest` characters.

    Raises:
        VerificationError: `field`.
    """
    value = fields.get(name)
    if not isinstance(value, str):
        raise bad_field(sequence, fields, name, "a text")
    if len(value) > longest:
        raise bad_field(sequence, fields, name, f"of at most {longest} characters")
    return value


def number(sequence: int, fields: Fields, name: str) -> int:
    """A field that is a whole number from 0.

    Raises:
        VerificationError: `field`.
    """
    value = fields.get(name)
    if type(value) is not int or value < 0:
        raise bad_field(sequence, fields, name, "a whole number")
    return value


def is_true(sequence: int, fields: Fields, name: str) -> bool:
    """A field that is true or false.

    Raises:
        VerificationError: `field`.
    """
    value = fields.get(name)
    if not isinstance(value, bool):
        raise bad_field(sequence, fields, name, "true or false")
    return value


def time(sequence: int, fields: Fields, name: str) -> int:
    """A field that is a time, in microseconds since 1970.

    Raises:
        VerificationError: `field`.
    """
    value = text(sequence, fields, name)
    if not TIME.fullmatch(value):
        raise bad_field(sequence, fields, name, "a time")
    try:
        return microseconds(value)
    except ValueError as error:
        raise bad_field(sequence, fields, name, "a time") from error


def version(sequence: int, fields: Fields, name: str) -> tuple[str, int]:
    """A field that names a version: its key, and its number.

    Raises:
        VerificationError: `field`.
    """
    match = _VERSION.fullmatch(text(sequence, fields, name))
    if match is None:
        raise bad_field(sequence, fields, name, "the name of a version")
    return match["key"], int(match["number"])


def bad_field(sequence: int, fields: Fields, name: str, what: str) -> VerificationError:
    """The fault of a field that is missing or of another kind."""
    return VerificationError(
        "field",
        sequence,
        f"record {sequence} ({shown(fields.get('type'))}): `{name}` is {shown(fields.get(name))}, and must be {what}",
    )
