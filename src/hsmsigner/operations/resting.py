"""Key versions whose last signature did not verify: they rest, so that a broken key costs no more than it must."""

from __future__ import annotations

from hsmsigner.domain.key import VersionName
from hsmsigner.errors import Reason, SignerError

REST_S = 60.0


class RestingVersions:
    """Versions that must not sign for a while; forgotten by a restart, which then finds out anew."""

    def __init__(self) -> None:
        self._until_s: dict[VersionName, float] = {}

    def rest(self, version: VersionName, now_s: float) -> None:
        """Let a version rest from now on."""
        self._until_s[version] = now_s + REST_S

    def refusals(self, now_s: float) -> dict[VersionName, SignerError]:
        """What to answer for each version that rests now."""
        self._until_s = {name: until_s for name, until_s in self._until_s.items() if until_s > now_s}
        message = "this key's last signature did not verify; it rests for a while; tell the operators"
        return {
            name: SignerError(Reason.KEY_UNHEALTHY, message, retry_after_s=until_s - now_s)
            for name, until_s in self._until_s.items()
        }
