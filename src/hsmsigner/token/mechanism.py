"""The table from signing algorithm to PKCS#11: how a key is generated, what C_SignInit gets, what C_Sign gets."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from pkcs11 import MGF, Attribute, KeyType, Mechanism, MechanismFlag
from pkcs11.attributes import AttributeMapper

from hsmsigner.domain.algorithm import ALGORITHMS, HashName, KeyKind, Padding, SigningAlgorithm
from hsmsigner.token.cryptoki import MechanismStructure
from hsmsigner.token.faults import KeyRefusedError

SIGN_AND_VERIFY = MechanismFlag.SIGN | MechanismFlag.VERIFY

# RFC 8017 section 9.2, note 1: CKM_RSA_PKCS pads what it is given, so the DigestInfo is ours to write.
_DIGEST_INFO = {
    HashName.SHA256: bytes.fromhex("3031300d060960864801650304020105000420"),
    HashName.SHA384: bytes.fromhex("3041300d060960864801650304020205000430"),
    HashName.SHA512: bytes.fromhex("3051300d060960864801650304020305000440"),
}
_PSS_HASH = {
    HashName.SHA256: (Mechanism.SHA256, MGF.SHA256),
    HashName.SHA384: (Mechanism.SHA384, MGF.SHA384),
    HashName.SHA512: (Mechanism.SHA512, MGF.SHA512),
}
# CKA_EC_PARAMS: the first form is what we generate with; tokens may read back the other (PKCS#11 v3.1 section 6.3.3).
_CURVE_PARAMETERS: dict[str, tuple[bytes, ...]] = {
    "secp256r1": (bytes.fromhex("06082a8648ce3d030107"),),
    "secp384r1": (bytes.fromhex("06052b81040022"),),
    "secp521r1": (bytes.fromhex("06052b81040023"),),
    "secp256k1": (bytes.fromhex("06052b8104000a"),),
    "ed25519": (bytes.fromhex("06032b6570"), b"\x13\x0cedwards25519"),
    "ed448": (bytes.fromhex("06032b6571"), b"\x13\x0aedwards448"),
}
_KEY_TYPES = {
    KeyKind.RSA: (KeyType.RSA, Mechanism.RSA_PKCS_KEY_PAIR_GEN),
    KeyKind.EC: (KeyType.EC, Mechanism.EC_KEY_PAIR_GEN),
    KeyKind.EDWARDS: (KeyType.EC_EDWARDS, Mechanism.EC_EDWARDS_KEY_PAIR_GEN),
}
_SIGNING = {
    Padding.PKCS1: Mechanism.RSA_PKCS,
    Padding.PSS: Mechanism.RSA_PKCS_PSS,
    Padding.ECDSA: Mechanism.ECDSA,
    Padding.EDDSA: Mechanism.EDDSA,
}


@dataclass(frozen=True, slots=True)
class TokenMechanism:
    """One row: `prefix` goes before the data; `data_size` is its length in bytes, None where any length will do."""

    algorithm: SigningAlgorithm
    key_type: KeyType
    generation: Mechanism
    signing: Mechanism
    curve_parameters: tuple[bytes, ...]
    prefix: bytes
    data_size: int | None
    parameter: bytes
    structure: MechanismStructure = field(compare=False, repr=False)

    def check_data(self, data: bytes) -> None:
        """Refuse what the token would take without a word (SoftHSM signs "digests" of 0 and of 33 bytes).

        Raises:
            KeyRefusedError: the length is wrong.
        """
        if self.data_size is not None and len(data) != self.data_size:
            raise KeyRefusedError(f"digest has {len(data)} bytes, {self.algorithm.name} takes {self.data_size}")

    def public_template(self, *, with_optional: bool) -> dict[Attribute, Any]:
        """Attributes of a new public key, besides what the binding derives from VERIFY."""
        template: dict[Attribute, Any] = {}
        if self.curve_parameters:
            template[Attribute.EC_PARAMS] = self.curve_parameters[0]
        if with_optional:
            template[Attribute.VERIFY_RECOVER] = False
        return template

    def private_template(self, *, with_optional: bool) -> dict[Attribute, Any]:
        """Attributes of a new private key (P1), besides what the binding derives from SIGN.

        The optional ones are those that not every token knows: the binding to one mechanism, and no SIGN_RECOVER, which
        SoftHSM otherwise grants.
        """
        template: dict[Attribute, Any] = {
            Attribute.PRIVATE: True,
            Attribute.SENSITIVE: True,
            Attribute.EXTRACTABLE: False,
        }
        if with_optional:
            template[Attribute.ALLOWED_MECHANISMS] = (self.signing,)
            template[Attribute.SIGN_RECOVER] = False
        return template


def _row(algorithm: SigningAlgorithm) -> TokenMechanism:
    key_type, generation = _KEY_TYPES[algorithm.kind]
    signing = _SIGNING[algorithm.padding]
    prefix = parameter = b""
    if algorithm.padding is Padding.PKCS1 and algorithm.hash_name is not None:
        prefix = _DIGEST_INFO[algorithm.hash_name]
    if algorithm.padding is Padding.PSS and algorithm.hash_name is not None:
        # CK_RSA_PKCS_PSS_PARAMS: hash, MGF with the same hash, salt as long as the hash.
        hash_mechanism, mgf = _PSS_HASH[algorithm.hash_name]
        parameter = struct.pack("LLL", hash_mechanism, mgf, algorithm.hash_name.size)
    return TokenMechanism(
        algorithm=algorithm,
        key_type=key_type,
        generation=generation,
        signing=signing,
        curve_parameters=_CURVE_PARAMETERS[algorithm.curve] if algorithm.curve else (),
        prefix=prefix,
        data_size=algorithm.hash_name.size if algorithm.hash_name is not None else None,
        parameter=parameter,
        structure=MechanismStructure(signing, parameter),
    )


MECHANISMS: dict[str, TokenMechanism] = {name: _row(algorithm) for name, algorithm in ALGORITHMS.items()}


def supported_algorithms(listed: Iterable[int]) -> list[str]:
    """Names of the algorithms whose generation and signing mechanisms a token lists, in the table's order."""
    there = set(listed)
    return [name for name, row in MECHANISMS.items() if row.signing in there and row.generation in there]


def attribute_mapper() -> AttributeMapper:
    """The binding's mapper, taught CKA_ALLOWED_MECHANISMS: an array of native unsigned longs."""
    mapper = AttributeMapper()
    mapper.register_handler(
        Attribute.ALLOWED_MECHANISMS,
        lambda mechanisms: struct.pack(f"{len(mechanisms)}L", *mechanisms),
        lambda packed: struct.unpack(f"{len(packed) // struct.calcsize('L')}L", packed),
    )
    return mapper
