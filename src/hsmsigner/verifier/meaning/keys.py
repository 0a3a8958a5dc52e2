"""The life of keys, replayed: which versions there are, in which state, and that only one that may sign signs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hsmsigner.verifier.fault import VerificationError, shown
from hsmsigner.verifier.log_key import LOG_KEY
from hsmsigner.verifier.meaning.fields import Fields, Judge, is_true, text, time, version

PRE_ACTIVATION, ACTIVE, SUSPENDED = "PRE_ACTIVATION", "ACTIVE", "SUSPENDED"
DEACTIVATED, COMPROMISED = "DEACTIVATED", "COMPROMISED"
DESTROY_SCHEDULED, DESTROYED = "DESTROY_SCHEDULED", "DESTROYED"
UNKNOWN = "UNKNOWN"
_STATES = frozenset(
    {PRE_ACTIVATION, ACTIVE, SUSPENDED, DEACTIVATED, COMPROMISED, DESTROY_SCHEDULED, DESTROYED},
)

_TAKEN_OUT = frozenset({SUSPENDED, COMPROMISED, DESTROY_SCHEDULED, DESTROYED})

# Type of record -> states it starts from, the state it leads to (None: the one before), and whether a primary may.
_TRANSITIONS: dict[str, tuple[frozenset[str], str | None, bool]] = {
    "key.suspended": (frozenset({ACTIVE}), SUSPENDED, True),
    "key.resumed": (frozenset({SUSPENDED}), ACTIVE, True),
    "key.deactivated": (frozenset({ACTIVE, SUSPENDED, PRE_ACTIVATION}), DEACTIVATED, False),
    "key.compromised": (_STATES - {DESTROYED}, COMPROMISED, True),
    "key.destroy_scheduled": (frozenset({DEACTIVATED, COMPROMISED, PRE_ACTIVATION}), DESTROY_SCHEDULED, False),
    "key.restored": (frozenset({DESTROY_SCHEDULED}), None, True),
    "key.destroyed": (frozenset({DESTROY_SCHEDULED}), DESTROYED, False),
}


@dataclass(slots=True)
class Version:
    """What the records so far say of a version; of one made before the log begins, only what they changed."""

    name: str
    state: str
    algorithm: str | None = None
    may_be_used: bool = True
    until: int | None = None
    scheduled_from: str | None = None
    is_destroying: bool = False
    # The newest record that suspended it, called it compromised or planned its end.
    taken_out: int = -1


@dataclass(slots=True)
class Key:
    """How many versions a key has, and which of them signs when none is named; None while that is not known."""

    count: int | None = 0
    primary: str | None = None
    algorithm: str | None = None


class Keys:
    """Replays `key.*` records and asks, for each authorization, whether the version may sign."""

    def __init__(self, *, is_partial: bool) -> None:
        self._is_partial = is_partial
        self._keys: dict[str, Key] = {}
        self._versions: dict[str, Version] = {}
        # Public keys of the log's own key, in hex.
        self.log_public_keys: set[str] = set()

    def judges(self) -> dict[str, Judge]:
        """What to ask for which type of record."""
        return {
            "key.created": self.made,
            "key.version_created": self.made,
            "key.adopted": self.made,
            "key.activated": self.activated,
            "key.rotation_failed": self.rotation_failed,
            "key.destroy_started": self.destroy_started,
            **dict.fromkeys(_TRANSITIONS, self.changed),
            "sign.authorized": self.authorized,
            "sign.completed": self.completed,
        }

    def authorized(self, sequence: int, fields: Fields, now: int) -> None:
        """An ACTIVE version signs, before its overlap is over, with its own algorithm; never the log's."""
        name = fields.get("key")
        found = self._versions.get(name) if isinstance(name, str) else None
        if found is None:
            key, _ = version(sequence, fields, "key")
            if key == LOG_KEY:
                raise _refused(sequence, f"{LOG_KEY} signs for a caller; it is kept for checkpoints")
            if not self._is_partial:
                raise _refused(sequence, f"{shown(name)} signs, which was never made")
            return
        if found.state != ACTIVE or (found.until is not None and now >= found.until):
            self._check_may_sign(sequence, found, now)
        if found.algorithm is not None and fields.get("algorithm") != found.algorithm:
            raise _refused(
                sequence, f"{found.name} signs with {shown(fields.get('algorithm'))}, and is of {found.algorithm}"
            )
        if not found.may_be_used:
            raise _refused(sequence, f"{found.name} signs, which could have left the token and was not allowed to")
        if found.name.startswith(f"{LOG_KEY}/"):
            raise _refused(sequence, f"{found.name} signs for a caller; it is kept for checkpoints")

    def completed(self, sequence: int, fields: Fields, _now: int) -> None:
        """Nothing is released of a version that was taken out of use meanwhile; one rotated out may end its work."""
        name, authorized = fields.get("key"), fields.get("authorized")
        found = self._versions.get(name) if isinstance(name, str) else None
        if found is not None and isinstance(authorized, int) and authorized < found.taken_out:
            raise _refused(
                sequence,
                f"a signature of {found.name} is released that was authorized before record {found.taken_out}, which"
                " took the version out of use",
            )

    def made(self, sequence: int, fields: Fields, _now: int) -> None:
        """A version is made or adopted: the next number of its key, with the key's algorithm."""
        name, number = version(sequence, fields, "version")
        algorithm = text(sequence, fields, "algorithm")
        public_key = text(sequence, fields, "public_key")
        is_protected = all(
            is_true(sequence, fields, field) for field in ("local", "always_sensitive", "never_extractable")
        )
        key = self._key(name)
        expected, key.count = key.count, number
        is_first = number == 1
        made = Version(f"{name}/versions/{number}", ACTIVE if is_first else PRE_ACTIVATION, algorithm)
        made.may_be_used = is_protected or fields.get("allow_unprotected") is True
        self._versions[made.name] = made
        if name == LOG_KEY:
            self.log_public_keys.add(public_key)
        before, key.algorithm = key.algorithm, algorithm
        if is_first:
            key.primary = made.name
        if expected is not None and number != expected + 1:
            raise _refused(sequence, f"{made.name} is made, and {name} has {expected} versions")
        if before not in (None, algorithm):
            raise _refused(sequence, f"{made.name} is of {shown(algorithm)}, and {name} of {before}")
        if fields["type"] == ("key.version_created" if is_first else "key.created"):
            raise _refused(sequence, f"{made.name} is made by {fields['type']}")

    def activated(self, sequence: int, fields: Fields, now: int) -> None:
        """A version takes over from the primary, which signs on until its overlap is over."""
        name, _ = version(sequence, fields, "version")
        old_name, until = text(sequence, fields, "old_version"), time(sequence, fields, "old_until")
        new, old, key = self._found(sequence, fields, "version"), self._versions.get(old_name), self._key(name)
        before, primary = new.state, key.primary
        new.state, key.primary = ACTIVE, new.name
        if old is not None and old.state in (ACTIVE, SUSPENDED, UNKNOWN):
            old.until = until
        if before not in (PRE_ACTIVATION, UNKNOWN):
            raise _refused(sequence, f"{new.name} takes over while it is {before}")
        if primary not in (None, old_name):
            raise _refused(sequence, f"{new.name} takes over from {shown(old_name)}, and the primary is {primary}")
        if until < now:
            raise _refused(sequence, f"the overlap of {shown(old_name)} ends before it begins")

    def changed(self, sequence: int, fields: Fields, _now: int) -> None:
        """A version changes its state, as the table allows."""
        kind = fields["type"]
        sources, target, is_for_primary = _TRANSITIONS[kind]
        found = self._found(sequence, fields, "version")
        before, is_destroying = found.state, found.is_destroying
        found.state = target or found.scheduled_from or str(fields.get("to"))
        if found.state in _TAKEN_OUT:
            found.taken_out = sequence
        if kind == "key.destroy_scheduled":
            found.scheduled_from = before if before != UNKNOWN else str(fields.get("from"))
        if before not in sources and before != UNKNOWN:
            raise _refused(sequence, f"{found.name} is {before}, and cannot be {kind.removeprefix('key.')}")
        if not is_for_primary and self._key(found.name.rpartition("/versions/")[0]).primary == found.name:
            raise _refused(sequence, f"{found.name} is the primary, and cannot be {kind.removeprefix('key.')}")
        if (kind == "key.destroyed") != is_destroying and before != UNKNOWN:
            raise _refused(
                sequence,
                f"{found.name} was destroyed without a record that it was about to be"
                if kind == "key.destroyed"
                else f"{found.name} changes after its destruction began",
            )
        for field, state in (("from", before), ("to", found.state)):
            if field in fields and fields[field] != state and UNKNOWN not in (before, state):
                raise _refused(
                    sequence, f"{found.name} goes {field} {shown(fields[field])} in the record, and is {state}"
                )

    def rotation_failed(self, sequence: int, fields: Fields, _now: int) -> None:
        """A version that was made and never took over is given up."""
        version(sequence, fields, "version")
        found = self._versions.get(fields["version"])
        if found is not None:
            before, found.state = found.state, DEACTIVATED
            if before not in (PRE_ACTIVATION, UNKNOWN):
                raise _refused(sequence, f"the rotation to {found.name} failed while it is {before}")

    def destroy_started(self, sequence: int, fields: Fields, _now: int) -> None:
        """From here on the pair may be gone."""
        found = self._found(sequence, fields, "version")
        before, found.is_destroying = found.state, True
        if before not in (DESTROY_SCHEDULED, UNKNOWN):
            raise _refused(sequence, f"the destruction of {found.name} begins while it is {before}")

    def check_signs(self, sequence: int, name: str, states: frozenset[str], now: int) -> None:
        """See that a version may sign something of the appliance's own (a certificate request, a statement).

        Raises:
            VerificationError: `key_state`.
        """
        found = self._versions.get(name)
        if found is None:
            if not self._is_partial:
                raise _refused(sequence, f"{shown(name)} signs, which was never made")
        elif found.state not in states or found.is_destroying or (found.until is not None and now >= found.until):
            self._check_may_sign(sequence, found, now)

    def _check_may_sign(self, sequence: int, found: Version, now: int) -> None:
        is_over = found.until is not None and now >= found.until
        if found.state != UNKNOWN or is_over:
            since = " and its overlap is over" if is_over else ""
            raise _refused(sequence, f"{found.name} signs while it is {found.state}{since}")

    def _key(self, name: str) -> Key:
        key = self._keys.get(name)
        if key is None:
            key = self._keys[name] = Key(None if self._is_partial else 0)
        return key

    def _found(self, sequence: int, fields: dict[str, Any], field: str) -> Version:
        version(sequence, fields, field)
        name = fields[field]
        found = self._versions.get(name)
        if found is None:
            if not self._is_partial:
                raise _refused(sequence, f"{name} changes, which was never made")
            found = self._versions[name] = Version(name, UNKNOWN)
        return found


def _refused(sequence: int, what: str) -> VerificationError:
    return VerificationError("key_state", sequence, f"record {sequence}: {what}")
