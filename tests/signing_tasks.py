"""Keys and tasks for tests of the token, and an independent check of what comes back."""

from __future__ import annotations

import os
from dataclasses import dataclass

import coincurve
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key

from hsmsigner.domain.algorithm import ALGORITHMS, HashName, Padding, SigningAlgorithm
from hsmsigner.domain.key import CkaId
from hsmsigner.operations.ports import SignTask, Token, TokenKeyPair

P256 = ALGORITHMS["ECDSA_P256_SHA256"]
_HASHES = {HashName.SHA256: hashes.SHA256(), HashName.SHA384: hashes.SHA384(), HashName.SHA512: hashes.SHA512()}


@dataclass(frozen=True)
class TestKey:
    """A key on the token."""

    __test__ = False

    cka_id: CkaId
    pair: TokenKeyPair
    algorithm: SigningAlgorithm

    def task(self, message: bytes, algorithm: SigningAlgorithm | None = None) -> SignTask:
        """The task of signing a message with this key."""
        algorithm = algorithm or self.algorithm
        return SignTask(self.cka_id, self.pair.public_key, algorithm, algorithm.to_be_signed(message))


async def new_key(token: Token, algorithm: SigningAlgorithm = P256) -> TestKey:
    """Generate a key under a random CKA_ID."""
    cka_id = CkaId(os.urandom(16))
    return TestKey(cka_id, await token.generate(cka_id, "test key", algorithm), algorithm)


def check_signature(public_key: bytes, algorithm: SigningAlgorithm, message: bytes, signature: bytes) -> None:
    """Verify over the whole message, so that nothing of the appliance's hashing or encoding is taken on trust."""
    key = load_der_public_key(public_key)
    if algorithm.curve == "secp256k1":
        assert isinstance(key, ec.EllipticCurvePublicKey)
        _check_secp256k1(key, algorithm, message, signature)
        return
    match key:
        case rsa.RSAPublicKey():
            assert algorithm.hash_name is not None
            hash_algorithm = _HASHES[algorithm.hash_name]
            scheme: padding.AsymmetricPadding = padding.PKCS1v15()
            if algorithm.padding is Padding.PSS:
                scheme = padding.PSS(padding.MGF1(hash_algorithm), salt_length=hash_algorithm.digest_size)
            assert key.key_size == algorithm.size
            key.verify(signature, message, scheme, hash_algorithm)
        case ec.EllipticCurvePublicKey():
            assert algorithm.hash_name is not None
            assert key.curve.name == algorithm.curve
            half = len(signature) // 2
            r, s = int.from_bytes(signature[:half], "big"), int.from_bytes(signature[half:], "big")
            key.verify(encode_dss_signature(r, s), message, ec.ECDSA(_HASHES[algorithm.hash_name]))
        case ed25519.Ed25519PublicKey() | ed448.Ed448PublicKey():
            key.verify(signature, message)
        case _:
            raise AssertionError(f"no way to verify under {type(key).__name__}")


def _check_secp256k1(
    key: ec.EllipticCurvePublicKey, algorithm: SigningAlgorithm, message: bytes, signature: bytes
) -> None:
    # libsecp256k1 does not accept the upper half of s, so this checks BIP 62 as well.
    der = encode_dss_signature(int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big"))
    point = key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    assert coincurve.PublicKey(point).verify(der, algorithm.to_be_signed(message), hasher=None)
