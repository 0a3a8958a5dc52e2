"""What the server's answers look like on a terminal and in JSON: enums without prefix, times in RFC 3339."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp


def enum_name(message: Message, field: str) -> str:
    """The name of an enum field's value without its prefix, as in ACTIVE; the number where this client knows none."""
    enum_type = message.DESCRIPTOR.fields_by_name[field].enum_type
    if enum_type is None:
        raise TypeError(f"{message.DESCRIPTOR.name}.{field} is not an enum")
    number = getattr(message, field)
    value = enum_type.values_by_number.get(number)
    prefix = enum_type.values_by_number[0].name.removesuffix("UNSPECIFIED")
    return str(number) if value is None else value.name.removeprefix(prefix)


def time_text(time: Timestamp) -> str:
    """RFC 3339 in UTC, to the second: enough for people, and the log has the rest."""
    return datetime.fromtimestamp(time.seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def version_fields(version: Any) -> dict[str, str | bool]:
    """A `KeyVersion`."""
    return {
        "name": version.name,
        "state": enum_name(version, "state"),
        "algorithm": enum_name(version, "algorithm"),
        "protection_level": enum_name(version, "protection_level"),
        "create_time": time_text(version.create_time),
        "cka_id": version.cka_id.hex(),
        "local": version.local,
        "always_sensitive": version.always_sensitive,
        "never_extractable": version.never_extractable,
    }


def key_fields(key: Any) -> dict[str, object]:
    """A `Key` with its primary version."""
    return {
        "name": key.name,
        "algorithm": enum_name(key, "algorithm"),
        "create_time": time_text(key.create_time),
        "primary": version_fields(key.primary),
    }


def protection_text(version: Any) -> str:
    """What the token promised of the private key, in words."""
    promises = {
        "generated in the token": version.local,
        "always sensitive": version.always_sensitive,
        "never extractable": version.never_extractable,
    }
    return ", ".join(promise if is_kept else f"NOT {promise}" for promise, is_kept in promises.items())
