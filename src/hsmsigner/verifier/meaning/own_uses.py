"""Uses of a key that no caller asked a signature of: certificate requests and statements of continuity.

Each is announced by a record before the key is used (`..._authorized`), in a state in which it may be.
"""

from __future__ import annotations

from collections import Counter

from hsmsigner.verifier.fault import VerificationError, shown
from hsmsigner.verifier.meaning.fields import Fields, Judge, text, version
from hsmsigner.verifier.meaning.keys import ACTIVE, PRE_ACTIVATION, Keys

_MAY_REQUEST = frozenset({ACTIVE, PRE_ACTIVATION})


class OwnUses:
    """Follows them from their announcement to their outcome."""

    def __init__(self, keys: Keys, *, is_partial: bool) -> None:
        self._keys = keys
        self._is_partial = is_partial
        self._requested: Counter[tuple[str, str]] = Counter()
        self._vouching: set[str] = set()

    def judges(self) -> dict[str, Judge]:
        """What to ask for which type of record."""
        return {
            "key.csr_authorized": self.csr_authorized,
            "key.csr": self.csr_ended,
            "key.csr_failed": self.csr_ended,
            "key.continuity_authorized": self.continuity_authorized,
            "key.continuity": self.continuity,
        }

    def csr_authorized(self, sequence: int, fields: Fields, now: int) -> None:
        """A version is about to sign a certificate request."""
        version(sequence, fields, "key")
        self._requested[text(sequence, fields, "principal"), fields["key"]] += 1
        self._keys.check_signs(sequence, fields["key"], _MAY_REQUEST, now)

    def csr_ended(self, sequence: int, fields: Fields, _now: int) -> None:
        """It did, or did not."""
        use = text(sequence, fields, "principal"), text(sequence, fields, "key")
        self._requested[use] -= 1
        if self._requested[use] >= 0:
            return
        self._requested[use] = 0
        if not self._is_partial:
            raise _unannounced(sequence, fields, use[1])

    def continuity_authorized(self, sequence: int, fields: Fields, now: int) -> None:
        """The old and the new version are about to sign each other."""
        version(sequence, fields, "version")
        self._vouching.add(fields["version"])
        self._keys.check_signs(sequence, text(sequence, fields, "old_version"), frozenset({ACTIVE}), now)
        self._keys.check_signs(sequence, fields["version"], frozenset({PRE_ACTIVATION}), now)

    def continuity(self, sequence: int, fields: Fields, _now: int) -> None:
        """They did."""
        name = text(sequence, fields, "version")
        if name not in self._vouching and not self._is_partial:
            raise _unannounced(sequence, fields, name)


def _unannounced(sequence: int, fields: Fields, name: str) -> VerificationError:
    return VerificationError(
        "outcome", sequence, f"record {sequence} ({fields['type']}): nothing announced that {shown(name)} would sign"
    )
