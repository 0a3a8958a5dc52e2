"""Key objects without a key in them: what SoftHSM keeps of a generation that a kill cut off.

It writes an object's file anew for each attribute, names and key material last, and so leaves objects that nobody can
find or use. Other tokens make a pair as a whole, and a key of theirs may hide its parameters: they are not looked at.
"""

from __future__ import annotations

import logging
import struct

from pkcs11.constants import Attribute, ObjectClass
from pkcs11.exceptions import AttributeSensitive, PKCS11Error
from pkcs11.mechanisms import KeyType
from pkcs11.types import Object

from hsmsigner.token.sessions import TokenSession

_LOGGER = logging.getLogger(__name__)

_MANUFACTURER = "SoftHSM project"
# What the token shows of the key itself, written with the secret; and the secret, which others may let it show.
_MATERIAL = {
    KeyType.RSA: (Attribute.MODULUS, Attribute.PRIVATE_EXPONENT),
    KeyType.EC: (Attribute.EC_PARAMS, Attribute.VALUE),
    KeyType.EC_EDWARDS: (Attribute.EC_PARAMS, Attribute.VALUE),
}


def remove_hollow_keys(session: TokenSession) -> None:
    """Destroy key objects of a SoftHSM token that hold no key. For a token that no other process uses.

    One that cannot be read or destroyed is left: it must not keep the others from signing.

    Raises:
        TokenError: the token could not be asked for its objects.
    """
    if session.binding.token.manufacturer_id != _MANUFACTURER:
        return
    for object_class in (ObjectClass.PRIVATE_KEY, ObjectClass.PUBLIC_KEY):
        for found in session.find_all({Attribute.CLASS: object_class}):
            try:
                if _is_hollow(found, object_class):
                    name, cka_id = found[Attribute.LABEL], found[Attribute.ID].hex()
                    _LOGGER.warning("%s %r (CKA_ID %s) holds no key and is destroyed", object_class.name, name, cka_id)
                    found.destroy()
            # The binding itself trips over key types that it does not know.
            except (PKCS11Error, ValueError, struct.error) as error:
                _LOGGER.warning("a %s object is left as it is: %s", object_class.name, type(error).__name__)


def _is_hollow(found: Object, object_class: ObjectClass) -> bool:
    material = _MATERIAL.get(found[Attribute.KEY_TYPE])
    if material is None:
        return False
    shown, secret = material
    if found[shown] != b"" or found[Attribute.LOCAL]:
        return False
    if object_class is ObjectClass.PUBLIC_KEY:
        return True
    try:
        return bool(found[secret] == b"")
    except AttributeSensitive:
        return True
