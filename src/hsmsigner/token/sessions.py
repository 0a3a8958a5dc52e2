"""One pooled session: finds keys by CKA_ID and public key, and signs. Used by one thread only, so it needs no lock."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from msgspec import Struct
from pkcs11.constants import Attribute, ObjectClass
from pkcs11.exceptions import AttributeTypeInvalid, PKCS11Error
from pkcs11.types import Object, Session

from hsmsigner.domain.algorithm import ALGORITHMS
from hsmsigner.token.cryptoki import Cryptoki, handle_of
from hsmsigner.token.faults import CKR_OK, KeyMissingError, KeyRefusedError, SignFailedError, TokenError
from hsmsigner.token.mechanism import MECHANISMS, TokenMechanism
from hsmsigner.token.public_key import public_key_info
from hsmsigner.token.verification import Verifier, verifier

# The longest signature is RSA-4096's; the rest is room for tokens that ask for more than they fill.
_BUFFER_BYTES = 1024
_CACHED_KEYS = 10_000


class KeyIdentity(Struct, frozen=True, gc=False):
    """What a key is found by: the first three must fit. `public_key` is SubjectPublicKeyInfo in DER."""

    cka_id: bytes
    public_key: bytes
    algorithm: str
    allow_unprotected: bool = False


@dataclass(frozen=True, slots=True)
class UsableKey:
    """A private key on the token that is the one meant. `handle` means something in this process only."""

    handle: int
    mechanism: TokenMechanism
    verify: Verifier


class TokenSession:
    """An open session with the keys found through it."""

    def __init__(self, cryptoki: Cryptoki, session: Session) -> None:
        self._cryptoki = cryptoki
        self._session = session
        self._keys: dict[KeyIdentity, UsableKey] = {}
        self._buffer = (ctypes.c_char * _BUFFER_BYTES)()
        self._length = ctypes.c_ulong()
        self.sign = self._signer()

    @property
    def binding(self) -> Session:
        """The session as python-pkcs11 sees it, for what is not signing."""
        return self._session

    def key(self, identity: KeyIdentity) -> UsableKey:
        """Find the private key for signing, once; then from memory.

        Raises:
            KeyMissingError: the token shows no private or no public key with that CKA_ID.
            KeyRefusedError: it shows one, or several, that must not be used.
            TokenError: the token could not be asked.
        """
        usable = self._keys.get(identity)
        if usable is None:
            usable = self._look_up(identity)
            if len(self._keys) >= _CACHED_KEYS:
                self._keys.clear()
            self._keys[identity] = usable
        return usable

    def find(self, object_class: ObjectClass, cka_id: bytes) -> list[Object]:
        """All objects of a class with a CKA_ID. Always read to the end: a half-read search blocks the session.

        Raises:
            TokenError: the token could not be asked.
        """
        return self.find_all({Attribute.CLASS: object_class, Attribute.ID: cka_id})

    def find_all(self, template: Mapping[Attribute, Any]) -> list[Object]:
        """All objects that fit a template, read to the end as by `find`.

        Raises:
            TokenError: the token could not be asked.
        """
        try:
            return list(self._session.get_objects(dict(template)))
        except PKCS11Error as error:
            raise TokenError.from_binding("C_FindObjects", error) from error

    def check_alive(self) -> None:
        """Ask what only a present token with a logged-in user answers.

        SoftHSM whose folder is gone fails here, and shows an empty token in a search.

        Raises:
            TokenError: the token is not there, or the user not logged in.
        """
        try:
            self._session.token.slot.get_token()
        except PKCS11Error as error:
            raise TokenError.from_binding("C_GetTokenInfo", error) from error
        if not self._cryptoki.is_user_logged_in(handle_of(self._session)):
            raise TokenError("C_GetSessionInfo: the user is not logged in", is_lost=True)

    def close(self) -> None:
        """Close the session; it was opened without PIN, so nobody else is logged out.

        Raises:
            TokenError: the module refused.
        """
        try:
            self._session.close()
        except PKCS11Error as error:
            raise TokenError.from_binding("C_CloseSession", error) from error

    def _look_up(self, identity: KeyIdentity) -> UsableKey:
        if identity.algorithm not in ALGORITHMS:
            raise KeyRefusedError(f"algorithm {identity.algorithm[:80]!r} is not known")
        row = MECHANISMS[identity.algorithm]
        verify = verifier(identity.public_key, row.algorithm)
        try:
            private = self._only(ObjectClass.PRIVATE_KEY, identity.cka_id)
            public = self._only(ObjectClass.PUBLIC_KEY, identity.cka_id)
            if public_key_info(public, row) != identity.public_key:
                raise KeyRefusedError("the public key on the token is not the expected one")
            _check_usable(private, row, allow_unprotected=identity.allow_unprotected)
        except PKCS11Error as error:
            raise TokenError.from_binding("C_GetAttributeValue", error) from error
        return UsableKey(int(private.handle or 0), row, verify)

    def _only(self, object_class: ObjectClass, cka_id: bytes) -> Object:
        found = self.find(object_class, cka_id)
        if not found:
            raise KeyMissingError(f"the token shows no {object_class.name} with CKA_ID {cka_id.hex()}")
        if len(found) > 1:
            # Tokens accept twins (facts, section 2); which of them signs would be chance.
            raise KeyRefusedError(f"{len(found)} objects of class {object_class.name} have CKA_ID {cka_id.hex()}")
        return found[0]

    def _signer(self) -> Callable[[UsableKey, bytes], bytes]:
        """Build `sign`, with all that does not change bound once: it runs for every signature."""
        session = handle_of(self._session)
        sign_init, sign = self._cryptoki.sign_init, self._cryptoki.sign
        buffer, length = self._buffer, self._length
        buffer_address, length_address = ctypes.addressof(buffer), ctypes.addressof(length)

        def sign_one(key: UsableKey, data: bytes) -> bytes:
            """Sign `data` (digest, or message for EdDSA) whose length was checked; the answer is not yet verified.

            Raises:
                SignFailedError: tells whether C_Sign was called, and whether it refused.
            """
            row = key.mechanism
            return_value = sign_init(session, row.structure.address, key.handle)
            if return_value != CKR_OK:
                raise SignFailedError("C_SignInit", return_value, was_called=False)
            if row.prefix:
                data = row.prefix + data
            length.value = _BUFFER_BYTES
            return_value = sign(session, data, len(data), buffer_address, length_address)
            if return_value != CKR_OK:
                raise SignFailedError("C_Sign", return_value, was_called=True)
            return ctypes.string_at(buffer_address, length.value)

        return sign_one


def _check_usable(private: Object, row: TokenMechanism, *, allow_unprotected: bool) -> None:
    if private[Attribute.KEY_TYPE] != row.key_type:
        raise KeyRefusedError(f"the private key on the token is not of the type that {row.algorithm.name} uses")
    if not allow_unprotected and (not private[Attribute.SENSITIVE] or private[Attribute.EXTRACTABLE]):
        raise KeyRefusedError("the private key is not SENSITIVE or is EXTRACTABLE; it could leave the token (P1)")
    try:
        is_guarded = bool(private[Attribute.ALWAYS_AUTHENTICATE])
    except (AttributeTypeInvalid, IndexError):
        is_guarded = False
    if is_guarded:
        # It would answer CKR_USER_NOT_LOGGED_IN to each signature, which reads like a lost login.
        raise KeyRefusedError(
            "the private key wants the PIN for each signature (ALWAYS_AUTHENTICATE), which is not supported"
        )
