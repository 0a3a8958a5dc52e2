"""The rotation policy of a key, as durations instead of messages of the wire."""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import timedelta

from google.protobuf.duration_pb2 import Duration

from hsmsigner.pb import resources_pb2


@dataclass(frozen=True, slots=True)
class RotationPolicy:
    """When a key rotates by itself (resources.proto). What is None (or 0 signatures) asks for nothing."""

    rotation_period: timedelta | None = None
    max_signatures: int = 0
    before_certificate_expiry: timedelta | None = None
    publish_lead: timedelta | None = None
    overlap: timedelta | None = None
    destroy_after: timedelta | None = None

    @classmethod
    def read(cls, message: resources_pb2.RotationPolicy) -> RotationPolicy:
        """The policy that a key has."""
        durations = {
            field.name: value.ToTimedelta() for field, value in message.ListFields() if field.name in _DURATIONS
        }
        return cls(max_signatures=message.max_signatures, **durations)

    def message(self) -> resources_pb2.RotationPolicy:
        """The policy as it is sent."""
        durations = {name: duration(value) for name in _DURATIONS if (value := getattr(self, name)) is not None}
        return resources_pb2.RotationPolicy(max_signatures=self.max_signatures, **durations)


def duration(length: timedelta) -> Duration:
    """A length of time as it is sent."""
    message = Duration()
    message.FromTimedelta(length)
    return message


_DURATIONS = tuple(field.name for field in fields(RotationPolicy) if field.name != "max_signatures")
