"""The log's own key and name: made by the appliance itself, found again after every crash, never anybody else's."""

from __future__ import annotations

import uuid

from hsmsigner.domain.algorithm import ALGORITHMS, SigningAlgorithm
from hsmsigner.domain.formats import encode_der
from hsmsigner.domain.key import LOG_KEY, Key, KeyState, KeyVersion
from hsmsigner.domain.principal import APPLIANCE
from hsmsigner.domain.signing import RequestId
from hsmsigner.errors import ConfigurationError, Reason, SignerError
from hsmsigner.operations.governance import GovernanceCache
from hsmsigner.operations.keys import Keys
from hsmsigner.operations.ports import Store, Token
from hsmsigner.transparency.checkpoint import parse_checkpoint
from hsmsigner.transparency.note import KeyType, NoteError, NoteKey

ED25519 = ALGORITHMS["ED25519"]
P256 = ALGORITHMS["ECDSA_P256_SHA256"]
_TYPES = {ED25519: KeyType.ED25519, P256: KeyType.ECDSA}
# SubjectPublicKeyInfo of Ed25519 (RFC 8410 section 4) is this and the 32 bytes of the key.
_ED25519_PREFIX = bytes.fromhex("302a300506032b6570032100")


class LogKey:
    """Makes it when it is missing. `origin` is the name of the log, which never changes."""

    def __init__(self, store: Store, token: Token, governance: GovernanceCache, keys: Keys, origin: str) -> None:
        self._store = store
        self._token = token
        self._governance = governance
        self._keys = keys
        # One request for good: however often a crash begins it anew, it makes one key.
        self._request_id = RequestId(str(uuid.uuid5(uuid.NAMESPACE_URL, origin)))
        self._is_ours = False

    async def ensure(self) -> Key:
        """The key; it is made if there is none.

        Raises:
            SignerError: KEY_EXISTS, somebody else made a key of that name; ALGORITHM_NOT_SUPPORTED, the token has
                neither algorithm; TOKEN_UNAVAILABLE, REQUEST_IN_PROGRESS, AUDIT_UNAVAILABLE, later again.
        """
        key = self._governance.newest.key(LOG_KEY)
        if key is not None and self._is_ours:
            return key
        async with self._store.transaction() as transaction:
            maker = transaction.keys.request_for(LOG_KEY)
            begun = next((one for one in transaction.keys.load_pending() if one.version.key == LOG_KEY), None)
        if maker is not None and maker.principal != APPLIANCE.text:
            message = f"{LOG_KEY} was made by {maker.principal}, who may have signed anything with it"
            raise SignerError(Reason.KEY_EXISTS, message)
        self._is_ours = True
        if key is None:
            algorithm = await self._algorithm() if begun is None else begun.algorithm
            key = await self._keys.create_own(LOG_KEY, algorithm, self._request_id)
        return key

    async def _algorithm(self) -> SigningAlgorithm:
        has = (await self._token.status()).algorithms
        for algorithm in _TYPES:
            if algorithm.name in has:
                return algorithm
        message = f"the token has neither {ED25519.name} nor {P256.name}, and no other key can sign checkpoints"
        raise SignerError(Reason.ALGORITHM_NOT_SUPPORTED, message)


def note_key(version: KeyVersion, origin: str) -> NoteKey:
    """The verification key of one version, as docs/log-format.md has it."""
    kind, public_key = _TYPES[version.algorithm], version.public_key
    return NoteKey(origin, kind, public_key.removeprefix(_ED25519_PREFIX) if kind is KeyType.ED25519 else public_key)


def note_signature(version: KeyVersion, raw: bytes) -> bytes:
    """The token's raw signature as a signature line has it: DER for ECDSA."""
    return encode_der(raw) if version.algorithm == P256 else raw


def vkeys(key: Key | None, origin: str) -> list[str]:
    """Verification keys of all versions, the first one ever first; none while there is no key."""
    return [] if key is None else [note_key(version, origin).vkey for version in key.versions]


def signing_version(key: Key) -> KeyVersion:
    """The version that signs checkpoints now.

    Raises:
        SignerError: KEY_NOT_ACTIVE, the primary is not ACTIVE; rotating the key gives it one that is.
    """
    version = key.primary
    if version.state is not KeyState.ACTIVE:
        message = f"{version.name} is {version.state.value}, so no checkpoint can be signed; rotate {LOG_KEY}"
        raise SignerError(Reason.KEY_NOT_ACTIVE, message)
    return version


async def require_origin(store: Store, origin: str) -> None:
    """See that the log still has the name that its checkpoints begin with.

    Raises:
        ConfigurationError: it has another one.
        SignerError: AUDIT_UNAVAILABLE.
    """
    newest = await store.read_newest_checkpoint()
    if newest is None:
        return
    try:
        named = parse_checkpoint(newest.note).origin
    except NoteError as error:
        raise ConfigurationError(f"the checkpoint of {newest.size} records in the store is damaged: {error}") from error
    if named != origin:
        raise ConfigurationError(
            f"the log's checkpoints begin with {named}, but `audit.origin` is {origin}: "
            f"set it to {named}; a log never changes its name, or every proof given so far would be worthless"
        )
