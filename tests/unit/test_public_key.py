"""Public keys as verifiers read them."""

from __future__ import annotations

import json

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key
from joserfc.jwk import KeySet, OctKey, import_key

from hsmsigner.domain.algorithm import ALGORITHMS, KeyKind, SigningAlgorithm
from hsmsigner.domain.public_key import to_jwk, to_jwks, to_pem
from tests.unit.samples import key_for, version

EVERY = pytest.mark.parametrize("algorithm", ALGORITHMS.values(), ids=ALGORITHMS)


@EVERY
def test_pem_is_what_cryptography_would_write(algorithm: SigningAlgorithm) -> None:
    der = key_for(algorithm)[1]
    read = load_pem_public_key(to_pem(der).encode())
    assert read.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo) == der
    assert read.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode() == to_pem(der)


@EVERY
def test_a_jwk_is_read_back_as_the_same_key(algorithm: SigningAlgorithm) -> None:
    der = key_for(algorithm)[1]
    jwk = to_jwk(version(algorithm=algorithm, public_key=der))
    if algorithm.jws is None:
        assert jwk is None
        return
    assert jwk is not None
    read = import_key(dict(jwk))
    assert not isinstance(read, OctKey)
    assert read.as_pem(private=False) == to_pem(der).encode()
    assert (jwk["kid"], jwk["alg"], jwk["use"]) == ("keys/settlement-eu/versions/1", algorithm.jws, "sig")
    assert jwk["kty"] == {KeyKind.RSA: "RSA", KeyKind.EC: "EC", KeyKind.EDWARDS: "OKP"}[algorithm.kind]
    assert not {"d", "p", "q", "dp", "dq", "qi"} & set(jwk)


@pytest.mark.parametrize("seed", range(8))
def test_a_coordinate_keeps_its_leading_zeros(seed: int) -> None:
    # One coordinate in 256 begins with a zero byte: the private keys 1... reach several quickly enough.
    private = ec.derive_private_key(seed * 97 + 1, ec.SECP521R1())
    der = private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    jwk = to_jwk(version(algorithm=ALGORITHMS["ECDSA_P521_SHA512"], public_key=der))
    assert jwk is not None
    assert {len(jwk["x"]), len(jwk["y"])} == {88}


def test_a_key_set_holds_every_key_that_jose_can_name() -> None:
    versions = [
        version(number, algorithm=algorithm, public_key=key_for(algorithm)[1])
        for number, algorithm in enumerate(ALGORITHMS.values(), 1)
    ]
    known = [each for each in versions if each.algorithm.jws is not None]

    text = to_jwks(versions)

    assert [jwk["kid"] for jwk in json.loads(text)["keys"]] == [str(each.name) for each in known]
    assert len(KeySet.import_key_set(json.loads(text)).keys) == len(known)
    assert json.loads(to_jwks([])) == {"keys": []}
