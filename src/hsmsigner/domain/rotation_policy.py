"""When a key rotates by itself, and a rotation that is under way. Durations are microseconds; 0 asks for nothing."""

from __future__ import annotations

from dataclasses import dataclass

from hsmsigner.domain.instant import MICROSECONDS_PER_SECOND, Instant
from hsmsigner.errors import invalid_field

SHORTEST_PERIOD_US = 60 * MICROSECONDS_PER_SECOND
# A century: what is longer is a slip, and sums of a few stay far inside what a timestamp can say.
LONGEST_US = 100 * 365 * 86_400 * MICROSECONDS_PER_SECOND


@dataclass(frozen=True, slots=True)
class RotationPolicy:
    """As proto/hsmsigner/v1/resources.proto describes it."""

    rotation_period_us: int = 0
    max_signatures: int = 0
    before_certificate_expiry_us: int = 0
    publish_lead_us: int = 0
    overlap_us: int = 0
    destroy_after_us: int = 0

    @property
    def is_automatic(self) -> bool:
        """Whether anything but a command begins a rotation."""
        return bool(self.rotation_period_us or self.max_signatures or self.before_certificate_expiry_us)

    def check(self, field: str = "rotation_policy") -> None:
        """See that the parts fit each other.

        Raises:
            SignerError: INVALID_FIELD.
        """
        for name, value in (
            ("rotation_period", self.rotation_period_us),
            ("before_certificate_expiry", self.before_certificate_expiry_us),
            ("publish_lead", self.publish_lead_us),
            ("overlap", self.overlap_us),
            ("destroy_after", self.destroy_after_us),
        ):
            if not 0 <= value <= LONGEST_US:
                raise invalid_field(f"{field}.{name}", "must not be negative, nor longer than a century")
        period_us = self.rotation_period_us
        if period_us and period_us < SHORTEST_PERIOD_US:
            raise invalid_field(f"{field}.rotation_period", "must be at least a minute")
        if self.before_certificate_expiry_us and self.publish_lead_us >= self.before_certificate_expiry_us:
            raise invalid_field(f"{field}.publish_lead", "must be shorter than before_certificate_expiry")
        if period_us and self.publish_lead_us >= period_us:
            raise invalid_field(f"{field}.publish_lead", "must be shorter than the rotation period")
        check_overlap(self.overlap_us, period_us, f"{field}.overlap")


NO_ROTATION = RotationPolicy()


def check_overlap(overlap_us: int, period_us: int, field: str = "overlap") -> None:
    """See that an old version is gone before the next rotation is due.

    Raises:
        SignerError: INVALID_FIELD.
    """
    if not 0 <= overlap_us <= LONGEST_US:
        raise invalid_field(field, "must not be negative, nor longer than a century")
    if period_us and overlap_us >= period_us:
        raise invalid_field(field, "must be shorter than the rotation period, or old versions would pile up")


@dataclass(frozen=True, slots=True)
class Rotation:
    """A rotation to version `number`: who asked for it (`appliance` when it was due) and why, and how far it is.

    `sequence` is its `key.rotation_started` record, and its identity. `publish_lead_us` is how long the new public key
    must have been published before it signs. `continuity_time` is when old and new were told to vouch for each other;
    `is_vouched` says that this is settled: they did, or it is recorded why not.
    """

    sequence: int
    number: int
    principal: str
    request_id: str
    reason: str
    start_time: Instant
    activate_time: Instant
    publish_lead_us: int
    overlap_us: int
    continuity_time: Instant | None = None
    is_vouched: bool = False
    finish_time: Instant | None = None
    # Why it ended without the new version taking over; empty otherwise.
    failure: str = ""
