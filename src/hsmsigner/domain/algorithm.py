"""The table of signing algorithms: one name fixes curve or modulus, hash and padding."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, unique

from Crypto.Hash import keccak

from hsmsigner.errors import Reason, SignerError


@unique
class KeyKind(Enum):
    """What the key pair is, apart from how it is used."""

    RSA = "RSA"
    EC = "EC"
    EDWARDS = "EDWARDS"


@unique
class Padding(Enum):
    """How the signature is built from the hash."""

    PKCS1 = "PKCS1"  # RFC 8017 section 8.2
    PSS = "PSS"  # RFC 8017 section 8.1, MGF1 with the same hash, salt as long as the hash
    ECDSA = "ECDSA"  # FIPS 186-5 section 6
    EDDSA = "EDDSA"  # RFC 8032, pure


@unique
class HashName(Enum):
    """Hashes the appliance computes itself; tokens differ too much in theirs (facts: SoftHSM has no ECDSA_SHA256)."""

    SHA256 = "SHA256"
    SHA384 = "SHA384"
    SHA512 = "SHA512"
    KECCAK256 = "KECCAK256"

    @property
    def size(self) -> int:
        """Length of a digest, in bytes."""
        return {"SHA256": 32, "SHA384": 48, "SHA512": 64, "KECCAK256": 32}[self.value]

    def digest(self, message: bytes) -> bytes:
        """Hash a message: FIPS 180-4, or Keccak-256 as Ethereum uses it (before the padding of FIPS 202)."""
        return _HASHERS[self](message)


def _keccak256(message: bytes) -> bytes:
    return keccak.new(digest_bits=256, data=message).digest()


_HASHERS: dict[HashName, Callable[[bytes], bytes]] = {
    HashName.SHA256: lambda message: hashlib.sha256(message).digest(),
    HashName.SHA384: lambda message: hashlib.sha384(message).digest(),
    HashName.SHA512: lambda message: hashlib.sha512(message).digest(),
    HashName.KECCAK256: _keccak256,
}


@dataclass(frozen=True, slots=True)
class SigningAlgorithm:
    """One row of the table.

    `size` is the modulus in bits for RSA, else the length of one half of the raw signature in bytes.
    `curve` is the name that `cryptography` and SEC 2 use (`secp256r1`), or `ed25519` / `ed448`; empty for RSA.
    `hash_name` is None for EdDSA, which takes the message itself. `jws` is the JOSE `alg`, None where there is none.
    """

    name: str
    kind: KeyKind
    padding: Padding
    size: int
    hash_name: HashName | None
    curve: str = ""
    jws: str | None = None

    @property
    def signature_size(self) -> int:
        """Length of the raw signature, in bytes."""
        return self.size // 8 if self.kind is KeyKind.RSA else 2 * self.size

    @property
    def takes_digest(self) -> bool:
        """Whether the token signs a digest (all but EdDSA)."""
        return self.hash_name is not None

    def to_be_signed(self, message: bytes) -> bytes:
        """Bytes the token gets for a message: its digest, or itself for EdDSA."""
        return message if self.hash_name is None else self.hash_name.digest(message)


def _rsa(padding: Padding, bits: int, hash_name: HashName) -> SigningAlgorithm:
    jws = ("RS" if padding is Padding.PKCS1 else "PS") + hash_name.value.removeprefix("SHA")
    name = f"RSA_{padding.value}_{bits}_{hash_name.value}"
    return SigningAlgorithm(name, KeyKind.RSA, padding, bits, hash_name, jws=jws)


def _ec(name: str, curve: str, size: int, hash_name: HashName, jws: str | None) -> SigningAlgorithm:
    return SigningAlgorithm(name, KeyKind.EC, Padding.ECDSA, size, hash_name, curve, jws)


def _edwards(name: str, curve: str, size: int) -> SigningAlgorithm:
    return SigningAlgorithm(name, KeyKind.EDWARDS, Padding.EDDSA, size, None, curve, "EdDSA")


_ROWS = (
    *(
        _rsa(padding, bits, hash_name)
        for padding in (Padding.PKCS1, Padding.PSS)
        for bits in (2048, 3072, 4096)
        for hash_name in (HashName.SHA256, HashName.SHA384, HashName.SHA512)
    ),
    _ec("ECDSA_P256_SHA256", "secp256r1", 32, HashName.SHA256, "ES256"),
    _ec("ECDSA_P384_SHA384", "secp384r1", 48, HashName.SHA384, "ES384"),
    _ec("ECDSA_P521_SHA512", "secp521r1", 66, HashName.SHA512, "ES512"),
    _ec("ECDSA_SECP256K1_SHA256", "secp256k1", 32, HashName.SHA256, "ES256K"),
    _ec("ECDSA_SECP256K1_KECCAK256", "secp256k1", 32, HashName.KECCAK256, None),
    _edwards("ED25519", "ed25519", 32),
    _edwards("ED448", "ed448", 57),
)

ALGORITHMS: dict[str, SigningAlgorithm] = {row.name: row for row in _ROWS}


def algorithm_named(name: str) -> SigningAlgorithm:
    """Look an algorithm up by its name.

    Raises:
        SignerError: ALGORITHM_NOT_SUPPORTED, with the names there are.
    """
    try:
        return ALGORITHMS[name]
    except KeyError:
        raise SignerError(
            Reason.ALGORITHM_NOT_SUPPORTED,
            f"algorithm {name[:80]!r} is not known; use one of {', '.join(ALGORITHMS)}",
            field="algorithm",
        ) from None
