"""Points, signatures and mechanism tables, checked against other people's encoders."""

from __future__ import annotations

import pytest
from asn1crypto.core import BitString, OctetString
from asn1crypto.keys import NamedCurve
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from hsmsigner.domain.algorithm import ALGORITHMS, KeyKind
from hsmsigner.token.faults import KeyRefusedError
from hsmsigner.token.mechanism import MECHANISMS
from hsmsigner.token.public_key import decode_point
from hsmsigner.token.verification import SECP256K1_ORDER, der_from_raw, verifier, with_low_s


@pytest.mark.parametrize("size", [32, 57, 65, 97, 133])
def test_point_is_read_in_all_forms_that_tokens_use(size: int) -> None:
    point = bytes([4]) + bytes(range(1, 251))[: size - 1]
    for form in (point, OctetString(point).dump(), BitString(value=_bits(point)).dump()):
        assert decode_point(form, size) == point


def _bits(octets: bytes) -> tuple[int, ...]:
    return tuple(octet >> shift & 1 for octet in octets for shift in range(7, -1, -1))


@pytest.mark.parametrize("garbage", [b"", b"\x04", bytes(66), b"\x04\x42" + bytes(65), b"\x30\x41" + bytes(65)])
def test_point_in_another_form_is_refused(garbage: bytes) -> None:
    with pytest.raises(ValueError, match="no form"):
        decode_point(garbage, 65)


@pytest.mark.parametrize("half", [32, 48, 66])
@given(st.data())
def test_raw_signature_becomes_the_der_that_others_read(half: int, data: st.DataObject) -> None:
    top = 2 ** (521 if half == 66 else 8 * half) - 1
    r, s = data.draw(st.integers(0, top)), data.draw(st.integers(0, top))
    assert decode_dss_signature(der_from_raw(r.to_bytes(half, "big") + s.to_bytes(half, "big"))) == (r, s)


@given(st.integers(1, SECP256K1_ORDER - 1))
def test_s_ends_in_the_lower_half_and_means_the_same(s: int) -> None:
    low = int.from_bytes(with_low_s(bytes(32) + s.to_bytes(32, "big"))[32:], "big")
    assert low <= SECP256K1_ORDER // 2
    assert low in (s, SECP256K1_ORDER - s)


def test_table_has_a_row_for_every_algorithm_and_curves_go_by_their_registered_number() -> None:
    assert list(MECHANISMS) == list(ALGORITHMS)
    for row in MECHANISMS.values():
        if row.algorithm.kind is KeyKind.EC:
            assert NamedCurve.load(row.curve_parameters[0]).native == row.algorithm.curve


def test_public_key_of_another_algorithm_gives_no_verifier() -> None:
    public = ec.generate_private_key(ec.SECP256R1()).public_key()
    encoded = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    for name in set(ALGORITHMS) - {"ECDSA_P256_SHA256"}:
        with pytest.raises(KeyRefusedError):
            verifier(encoded, ALGORITHMS[name])
    with pytest.raises(KeyRefusedError):
        verifier(b"not a key", ALGORITHMS["ED25519"])


def test_verifier_refuses_a_changed_or_shortened_signature() -> None:
    key = ed25519.Ed25519PrivateKey.generate()
    public_key = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    verify = verifier(public_key, ALGORITHMS["ED25519"])
    signature = key.sign(b"message")
    assert verify(signature, b"message") == signature
    for wrong in (signature[:-1], b"", signature[:-1] + bytes([signature[-1] ^ 1])):
        with pytest.raises(InvalidSignature):
            verify(wrong, b"message")
