"""Generate key pairs on the token and read back what it says of them. Writes to the token go one at a time."""

from __future__ import annotations

import contextlib
import logging
from threading import Lock

from pkcs11.constants import Attribute, ObjectClass
from pkcs11.exceptions import (
    AttributeTypeInvalid,
    AttributeValueInvalid,
    DeviceMemory,
    DomainParamsInvalid,
    KeySizeRange,
    MechanismInvalid,
    PKCS11Error,
    TemplateInconsistent,
)
from pkcs11.types import Object

from hsmsigner.domain.algorithm import KeyKind
from hsmsigner.operations.ports import TokenKeyPair
from hsmsigner.token.faults import KeyMissingError, KeyRefusedError, TokenError
from hsmsigner.token.mechanism import SIGN_AND_VERIFY, TokenMechanism
from hsmsigner.token.public_key import public_key_info
from hsmsigner.token.sessions import TokenSession

_LOGGER = logging.getLogger(__name__)

# How tokens say that they do not know an attribute of a template.
_TEMPLATE_FAULTS = (AttributeTypeInvalid, AttributeValueInvalid, TemplateInconsistent)
_CKR_CURVE_NOT_SUPPORTED = "0x140"
_CKR_ACTION_PROHIBITED = "0x1b"


class AlgorithmUnsupportedError(Exception):
    """The token has no mechanism, curve or size for it."""


class KeyNotProtectedError(Exception):
    """The new private key was not LOCAL, ALWAYS_SENSITIVE and NEVER_EXTRACTABLE; the pair was destroyed again."""


class KeyIdTakenError(Exception):
    """The token has something with that CKA_ID; two keys with one would make signing a matter of chance."""


class TokenFullError(Exception):
    """The token has no room for another pair."""


class TokenKeys:
    """Key pairs of one token, through whatever session the caller's thread owns."""

    def __init__(self, writing: Lock) -> None:
        # SoftHSM answers concurrent writers with GENERAL_ERROR even when it locks (facts 0.3): all take this lock.
        self._writing = writing

    def generate(self, session: TokenSession, cka_id: bytes, label: str, row: TokenMechanism) -> TokenKeyPair:
        """Generate a pair: SIGN only, SENSITIVE, not EXTRACTABLE, bound to its mechanism where the token can.

        Raises:
            KeyIdTakenError, TokenFullError, AlgorithmUnsupportedError, KeyNotProtectedError: nothing new is on the
                token.
            TokenError: the pair may or may not exist.
        """
        with self._writing:
            _remove_half(session, cka_id, label)
            if session.find(ObjectClass.PRIVATE_KEY, cka_id) or session.find(ObjectClass.PUBLIC_KEY, cka_id):
                raise KeyIdTakenError(f"CKA_ID {cka_id.hex()} is taken")
            try:
                public, private = _generate(session, cka_id, label, row)
                pair = _described(public, private, row)
            except DeviceMemory as error:
                _remove_half(session, cka_id, label)
                raise TokenFullError("the token is full") from error
            except PKCS11Error as error:
                raise TokenError.from_binding("C_GenerateKeyPair", error) from error
            if not (pair.local and pair.always_sensitive and pair.never_extractable and _is_sensitive(private)):
                _destroy(public, private)
                raise KeyNotProtectedError("the new key was not LOCAL, ALWAYS_SENSITIVE and NEVER_EXTRACTABLE")
            return pair

    def describe(self, session: TokenSession, cka_id: bytes, row: TokenMechanism) -> TokenKeyPair:
        """Read a pair back.

        Raises:
            KeyMissingError: the token shows no private or no public key with that CKA_ID.
            KeyRefusedError: it shows several, or one of another algorithm.
            TokenError: the token could not be asked.
        """
        privates = session.find(ObjectClass.PRIVATE_KEY, cka_id)
        publics = session.find(ObjectClass.PUBLIC_KEY, cka_id)
        if not privates or not publics:
            raise KeyMissingError(f"the token shows no key pair with CKA_ID {cka_id.hex()}")
        if len(privates) > 1 or len(publics) > 1:
            raise KeyRefusedError(f"several objects of one class have CKA_ID {cka_id.hex()}")
        try:
            return _described(publics[0], privates[0], row)
        except PKCS11Error as error:
            raise TokenError.from_binding("C_GetAttributeValue", error) from error

    def destroy(self, session: TokenSession, cka_id: bytes, public_key: bytes, row: TokenMechanism) -> None:
        """Destroy the pair with this CKA_ID and public key (SubjectPublicKeyInfo, DER), the private key first.

        Raises:
            KeyMissingError: the token shows nothing with that CKA_ID.
            KeyRefusedError: it shows something else too, or instead; or it refuses. Nothing was changed.
            TokenError: the token could not be asked, or stopped halfway.
        """
        with self._writing:
            privates = session.find(ObjectClass.PRIVATE_KEY, cka_id)
            publics = session.find(ObjectClass.PUBLIC_KEY, cka_id)
            if not privates and not publics:
                raise KeyMissingError(f"the token shows nothing with CKA_ID {cka_id.hex()}")
            # Without its public half a private key could be anybody's: we always destroy the private one first.
            if len(privates) > 1 or len(publics) != 1:
                raise KeyRefusedError(f"what has CKA_ID {cka_id.hex()} is not one key pair")
            try:
                if public_key_info(publics[0], row) != public_key:
                    raise KeyRefusedError("the public key on the token is not the expected one")
                for found in (*privates, *publics):
                    found.destroy()
            except PKCS11Error as error:
                if _CKR_ACTION_PROHIBITED in str(error):
                    raise KeyRefusedError("the token does not let the key be destroyed (CKA_DESTROYABLE)") from error
                raise TokenError.from_binding("C_DestroyObject", error) from error


def _remove_half(session: TokenSession, cka_id: bytes, label: str) -> None:
    """Destroy the public half of a pair that a token which failed or was cut off left without its private half.

    Only one with our label: what others made stays, and takes the CKA_ID.
    """
    if session.find(ObjectClass.PRIVATE_KEY, cka_id):
        return
    try:
        for public in session.find(ObjectClass.PUBLIC_KEY, cka_id):
            # Without a login the token hides private keys.
            session.check_alive()
            if public[Attribute.LABEL] == label:
                _LOGGER.warning("%s: a public key without its private key is destroyed", label)
                public.destroy()
    except PKCS11Error as error:
        raise TokenError.from_binding("C_DestroyObject", error) from error


def _generate(session: TokenSession, cka_id: bytes, label: str, row: TokenMechanism) -> tuple[Object, Object]:
    for with_optional in (True, False):
        try:
            public, private = session.binding.generate_keypair(
                row.key_type,
                row.algorithm.size if row.algorithm.kind is KeyKind.RSA else None,
                id=cka_id,
                label=label,
                store=True,
                capabilities=SIGN_AND_VERIFY,
                mechanism=row.generation,
                public_template=row.public_template(with_optional=with_optional),
                private_template=row.private_template(with_optional=with_optional),
            )
        except (MechanismInvalid, DomainParamsInvalid, KeySizeRange) as error:
            raise AlgorithmUnsupportedError(f"{row.algorithm.name}: {type(error).__name__}") from error
        except _TEMPLATE_FAULTS:
            # The worker holds to the algorithm even where the token does not.
            if not with_optional:
                raise
        except PKCS11Error as error:
            if _CKR_CURVE_NOT_SUPPORTED in str(error):
                raise AlgorithmUnsupportedError(f"{row.algorithm.name}: the curve is not supported") from error
            raise
        else:
            return public, private
    raise AlgorithmUnsupportedError(row.algorithm.name)


def _described(public: Object, private: Object, row: TokenMechanism) -> TokenKeyPair:
    return TokenKeyPair(
        public_key=public_key_info(public, row),
        local=bool(private[Attribute.LOCAL]),
        always_sensitive=bool(private[Attribute.ALWAYS_SENSITIVE]),
        never_extractable=bool(private[Attribute.NEVER_EXTRACTABLE]),
    )


def _is_sensitive(private: Object) -> bool:
    return bool(private[Attribute.SENSITIVE]) and not private[Attribute.EXTRACTABLE]


def _destroy(public: Object, private: Object) -> None:
    try:
        with contextlib.ExitStack() as stack:
            stack.callback(public.destroy)
            private.destroy()
    except PKCS11Error as error:
        _LOGGER.exception("an unprotected key pair could not be destroyed again")
        raise TokenError.from_binding("C_DestroyObject", error) from error
