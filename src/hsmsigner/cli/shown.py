"""What the server's answers look like on a terminal and in JSON: enums without prefix, times in RFC 3339."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from google.protobuf.duration_pb2 import Duration
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


def maybe_time_text(message: Any, field: str) -> str | None:
    """The same for a field that may be unset."""
    return time_text(getattr(message, field)) if message.HasField(field) else None


def version_fields(version: Any) -> dict[str, Any]:
    """A `KeyVersion`."""
    return {
        "name": version.name,
        "state": enum_name(version, "state"),
        "algorithm": enum_name(version, "algorithm"),
        "protection_level": enum_name(version, "protection_level"),
        "origin": enum_name(version, "origin"),
        "create_time": time_text(version.create_time),
        "activate_time": maybe_time_text(version, "activate_time"),
        "deactivate_time": maybe_time_text(version, "deactivate_time"),
        "destroy_time": maybe_time_text(version, "destroy_time"),
        "signature_count": version.signature_count,
        "cka_id": version.cka_id.hex(),
        "local": version.local,
        "always_sensitive": version.always_sensitive,
        "never_extractable": version.never_extractable,
        "certificate_chain": version.certificate_chain or None,
        "etag": version.etag,
    }


def key_fields(key: Any) -> dict[str, Any]:
    """A `Key` with its primary version."""
    policy = key.rotation_policy
    return {
        "name": key.name,
        "algorithm": enum_name(key, "algorithm"),
        "create_time": time_text(key.create_time),
        "primary": version_fields(key.primary),
        "rotation_policy": {
            field.name: duration_text(value) if isinstance(value, Duration) else value
            for field, value in policy.ListFields()
        },
        "next_rotation_time": maybe_time_text(key, "next_rotation_time"),
        "etag": key.etag,
    }


def duration_text(duration: Duration) -> str:
    """The shortest way to write it that is exact to the second, as in 90d, 36h or 90s."""
    seconds = duration.seconds
    for unit, size in (("d", 86_400), ("h", 3600), ("m", 60)):
        if seconds and seconds % size == 0:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def rotation_text(key: Any) -> str:
    """A key's rotation policy in words."""
    policy = key.rotation_policy
    causes = []
    if policy.HasField("rotation_period"):
        causes.append(f"every {duration_text(policy.rotation_period)}")
    if policy.max_signatures:
        causes.append(f"after {policy.max_signatures} signatures")
    if policy.HasField("before_certificate_expiry"):
        causes.append(f"{duration_text(policy.before_certificate_expiry)} before its certificate expires")
    begins = maybe_time_text(key, "next_rotation_time")
    return (", ".join(causes) or "by command only") + (f"; next begins {begins}" if begins else "")


def life_text(version: Any) -> str:
    """From when until when a version signs, and when it goes, in words."""
    begin, end = maybe_time_text(version, "activate_time"), maybe_time_text(version, "deactivate_time")
    words = f"from {begin or 'no time yet'}" + (f" until {end}" if end else "")
    gone = maybe_time_text(version, "destroy_time")
    return words + (f"; destroyed {gone}" if gone else "")


def protection_text(version: Any) -> str:
    """What the token promised of the private key, in words."""
    promises = {
        "generated in the token": version.local,
        "always sensitive": version.always_sensitive,
        "never extractable": version.never_extractable,
    }
    words = [promise if is_kept else f"NOT {promise}" for promise, is_kept in promises.items()]
    return ", ".join((["ADOPTED"] if enum_name(version, "origin") == "ADOPTED" else []) + words)
