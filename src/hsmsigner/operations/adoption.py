"""Taking a pair that is on the token already, made in a ceremony by others, as a version of a key."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from hsmsigner.domain.algorithm import SigningAlgorithm
from hsmsigner.domain.instant import Instant
from hsmsigner.domain.key import CkaId, Key, KeyName, KeyOrigin, KeyState, KeyVersion, VersionName
from hsmsigner.domain.policy import Right
from hsmsigner.domain.principal import Principal
from hsmsigner.domain.signing import RequestId
from hsmsigner.errors import Reason, SignerError, invalid_field
from hsmsigner.operations.access import refuse_log_key, require_key_rights
from hsmsigner.operations.governance import GovernanceCache
from hsmsigner.operations.key_changes import Cause, Change, KeyChanges
from hsmsigner.operations.ports import PendingKey, RequestKey, Store, Token, TokenKeyPair

_LONGEST_CKA_ID = 255
# Who may only manage what is there must not bring in a key whose maker nobody here knows.
_RIGHTS = (Right.CREATE_KEY, Right.MANAGE_KEY)


@dataclass(frozen=True, slots=True)
class WantedAdoption:
    """The pair that is meant, and whether it may be one that could have left the token."""

    algorithm: SigningAlgorithm
    cka_id: CkaId
    allow_unprotected: bool = False


class Adoption:
    """The use case behind AdoptKeyVersion."""

    def __init__(self, store: Store, token: Token, governance: GovernanceCache, clock: Callable[[], Instant]) -> None:
        self._changes = KeyChanges(store, governance, clock)
        self._token = token

    async def adopt(self, principal: Principal, name: KeyName, wanted: WantedAdoption, cause: Cause) -> KeyVersion:
        """Take the pair as the next version of the key (PRE_ACTIVATION), or as the first of a new one (ACTIVE).

        A pair that is a version of this key already is answered as it is, so a retry does no harm.

        Raises:
            SignerError: KEY_NOT_FOUND_OR_FORBIDDEN, KEY_RESERVED, INVALID_FIELD, KEY_NOT_ON_TOKEN, KEY_NOT_PROTECTED,
                KEY_EXISTS, ROTATION_IN_PROGRESS, TOKEN_REFUSED, TOKEN_UNAVAILABLE.
        """
        require_key_rights(self._changes.governance, principal, name, *_RIGHTS)
        refuse_log_key(name)
        cause.check()
        if not 1 <= len(wanted.cka_id) <= _LONGEST_CKA_ID:
            raise invalid_field("cka_id", f"must be 1-{_LONGEST_CKA_ID} bytes")
        # Not `is_sure`: a slip of the pen must not interrupt signing, as opening the token afresh does.
        pair = await self._token.find(wanted.cka_id, wanted.algorithm, is_sure=False)
        if pair is None:
            message = f"the token shows no {wanted.algorithm.name} key pair with CKA_ID {wanted.cka_id.hex()}"
            raise SignerError(Reason.KEY_NOT_ON_TOKEN, message, field="cka_id")
        is_protected = pair.local and pair.always_sensitive and pair.never_extractable
        if not (is_protected or wanted.allow_unprotected):
            message = (
                "the private key was not made on the token, or could have left it; set allow_unprotected to adopt it"
            )
            raise SignerError(Reason.KEY_NOT_PROTECTED, message, field="allow_unprotected")
        async with self._changes.begin() as change:
            require_key_rights(change.governance, principal, name, *_RIGHTS)
            details = str(name), wanted.algorithm.name, wanted.cka_id.hex(), wanted.allow_unprotected
            change.claim("AdoptKeyVersion", cause, *details)
            return _adopt(change, name, wanted, pair, cause)


def _adopt(change: Change, name: KeyName, wanted: WantedAdoption, pair: TokenKeyPair, cause: Cause) -> KeyVersion:
    keys = change.transaction.keys
    key, owner = keys.load(name), keys.owner_of(wanted.cka_id)
    if owner is not None:
        known = None if key is None or owner.key != name else key.version(owner.number)
        if known is None or known.origin is not KeyOrigin.ADOPTED or known.algorithm != wanted.algorithm:
            raise SignerError(Reason.KEY_EXISTS, "the pair with that CKA_ID is a version of a key already")
        return known
    if wanted.cka_id in change.transaction.unwanted_pairs.load():
        raise SignerError(Reason.KEY_NOT_ON_TOKEN, "the pair was made for a rotation that was called off, and goes")
    if any(pair.public_key == version.public_key for other in keys.load_all() for version in other.versions):
        # Under another CKA_ID the same key would have quotas of its own, and could "rotate" to itself.
        raise SignerError(Reason.KEY_EXISTS, "the pair has the public key of a version that is there already")
    _check_room(change, name, key, wanted)
    number = 1 if key is None else len(key.versions) + 1
    request = RequestKey(cause.principal.text, RequestId(cause.request_id))
    keys.insert_pending(PendingKey(name, wanted.algorithm, wanted.cka_id, request, number), change.now)
    version = KeyVersion(
        VersionName(name, number),
        wanted.algorithm,
        KeyState.ACTIVE if key is None else KeyState.PRE_ACTIVATION,
        wanted.cka_id,
        pair.public_key,
        change.now,
        pair.local,
        pair.always_sensitive,
        pair.never_extractable,
        origin=KeyOrigin.ADOPTED,
        allow_unprotected=wanted.allow_unprotected,
        activate_time=change.now if key is None else None,
    )
    keys.complete(version)
    change.record(
        "key.adopted",
        version.name,
        cause,
        algorithm=version.algorithm.name,
        cka_id=version.cka_id.hex(),
        public_key=version.public_key.hex(),
        local=version.local,
        always_sensitive=version.always_sensitive,
        never_extractable=version.never_extractable,
        allow_unprotected=version.allow_unprotected,
    )
    return version


def _check_room(change: Change, name: KeyName, key: Key | None, wanted: WantedAdoption) -> None:
    """See that the key, if there is one, can take a version of that algorithm now."""
    if key is None:
        if change.transaction.keys.request_for(name) is not None:
            raise SignerError(Reason.KEY_EXISTS, f"{name} is being made by another request")
        return
    if key.algorithm != wanted.algorithm:
        raise invalid_field("algorithm", f"must be that of {name}, {key.algorithm.name}")
    if key.rotation is not None:
        message = f"{name} is being rotated; wait for it, or deactivate its new version to call it off"
        raise SignerError(Reason.ROTATION_IN_PROGRESS, message)
