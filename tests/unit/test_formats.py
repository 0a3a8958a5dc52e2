"""Each format, checked by somebody else's verifier; each combination that does not fit, refused."""

from __future__ import annotations

import json
import subprocess
from base64 import urlsafe_b64decode
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from joserfc import jws
from joserfc.errors import BadSignatureError
from joserfc.jwk import Key as JoseKey
from joserfc.jwk import import_key

from hsmsigner.domain.algorithm import ALGORITHMS, HashName, KeyKind, Padding, SigningAlgorithm
from hsmsigner.domain.formats import OutputFormat, SignaturePlan, encode_der, plan_signature
from hsmsigner.domain.policy import InputKind
from hsmsigner.domain.public_key import to_jwk, to_pem
from hsmsigner.errors import Reason, SignerError
from tests.fakes import sign_raw
from tests.signing_tasks import check_signature
from tests.unit.samples import key_for, version

EVERY = pytest.mark.parametrize("algorithm", ALGORITHMS.values(), ids=ALGORITHMS)
MESSAGE = b"pacs.009 \x00\xff" * 11
NAME = "keys/settlement-eu/versions/1"


def plan(
    algorithm: SigningAlgorithm,
    output_format: OutputFormat = OutputFormat.RAW,
    body: bytes = MESSAGE,
    kind: InputKind = InputKind.MESSAGE,
) -> SignaturePlan:
    return plan_signature(version(algorithm=algorithm, public_key=key_for(algorithm)[1]), kind, body, output_format)


def signed(
    algorithm: SigningAlgorithm,
    output_format: OutputFormat = OutputFormat.RAW,
    body: bytes = MESSAGE,
    kind: InputKind = InputKind.MESSAGE,
) -> bytes:
    planned = plan(algorithm, output_format, body, kind)
    return planned.encode(sign_raw(key_for(algorithm)[0], algorithm, planned.to_be_signed))


@EVERY
def test_a_raw_signature_verifies_and_has_its_length(algorithm: SigningAlgorithm) -> None:
    signature = signed(algorithm)
    assert len(signature) == algorithm.signature_size
    check_signature(key_for(algorithm)[1], algorithm, MESSAGE, signature)


@pytest.mark.parametrize(
    "algorithm", [each for each in ALGORITHMS.values() if each.takes_digest], ids=lambda each: each.name
)
def test_a_digest_is_signed_as_its_message_would_be(algorithm: SigningAlgorithm) -> None:
    assert algorithm.hash_name is not None
    digest = algorithm.hash_name.digest(MESSAGE)
    assert plan(algorithm, body=digest, kind=InputKind.DIGEST).to_be_signed == plan(algorithm).to_be_signed == digest
    signature = signed(algorithm, body=digest, kind=InputKind.DIGEST)
    check_signature(key_for(algorithm)[1], algorithm, MESSAGE, signature)


@EVERY
def test_openssl_accepts_what_it_can_read(algorithm: SigningAlgorithm, tmp_path: Path) -> None:
    output_format = OutputFormat.DER if algorithm.padding is Padding.ECDSA else OutputFormat.RAW
    public, signature, message = tmp_path / "public.pem", tmp_path / "signature", tmp_path / "message"
    public.write_text(to_pem(key_for(algorithm)[1]), "ascii")
    signature.write_bytes(signed(algorithm, output_format))
    if algorithm.hash_name in (None, HashName.KECCAK256):
        # openssl 3.0 has no Keccak-256, and EdDSA has no `dgst`.
        message.write_bytes(algorithm.to_be_signed(MESSAGE))
        verify: list[str | Path] = [
            "pkeyutl",
            "-verify",
            "-pubin",
            "-inkey",
            public,
            "-sigfile",
            signature,
            "-in",
            message,
        ]
        verify += ["-rawin"] if algorithm.hash_name is None else []
    else:
        message.write_bytes(MESSAGE)
        verify = ["dgst", f"-{algorithm.hash_name.value.lower()}", "-verify", public, "-signature", signature]
        if algorithm.padding is Padding.PSS:
            verify += ["-sigopt", "rsa_padding_mode:pss", "-sigopt", "rsa_pss_saltlen:digest"]
        verify.append(message)

    assert subprocess.run(["openssl", *verify], capture_output=True, check=False).returncode == 0
    message.write_bytes(algorithm.to_be_signed(MESSAGE + b"!"))
    assert subprocess.run(["openssl", *verify], capture_output=True, check=False).returncode != 0


@pytest.mark.parametrize(
    ("r", "s", "size"),
    [(1, 1, 32), (2**256 - 1, 2**255, 32), (127, 128, 48), (2**384 - 1, 1, 48), (2**521 - 1, 2**520, 66)],
)
def test_der_holds_the_two_integers(r: int, s: int, size: int) -> None:
    assert decode_dss_signature(encode_der(r.to_bytes(size) + s.to_bytes(size))) == (r, s)


# RFC 9864 would rather say Ed25519 than EdDSA; verifiers know the older name.
OLD_NAME = pytest.mark.filterwarnings("ignore:EdDSA is deprecated")
JOSE = [each for each in ALGORITHMS.values() if each.jws is not None]


@OLD_NAME
@pytest.mark.parametrize("algorithm", JOSE, ids=lambda each: each.name)
def test_a_jose_library_accepts_a_compact_jws(algorithm: SigningAlgorithm) -> None:
    compact = signed(algorithm, OutputFormat.JWS_COMPACT)

    read = jws.deserialize_compact(compact, jose_key(algorithm), algorithms=[str(algorithm.jws)])

    assert read.payload == MESSAGE
    assert read.headers() == {"alg": algorithm.jws, "kid": NAME}
    head, _, tail = compact.split(b".")
    with pytest.raises(BadSignatureError):
        jws.deserialize_compact(b".".join((head, b"cGF5", tail)), jose_key(algorithm), algorithms=[str(algorithm.jws)])


@OLD_NAME
@pytest.mark.parametrize("algorithm", JOSE, ids=lambda each: each.name)
def test_a_detached_jws_is_the_compact_one_without_its_payload(algorithm: SigningAlgorithm) -> None:
    detached = signed(algorithm, OutputFormat.JWS_DETACHED)

    head, payload, tail = detached.split(b".")
    assert payload == b""
    assert json.loads(urlsafe_b64decode(head + b"==")) == {"alg": algorithm.jws, "kid": NAME}
    compact = plan(algorithm, OutputFormat.JWS_COMPACT).encode(b"").split(b".")
    whole = b".".join((head, compact[1], tail))
    assert jws.deserialize_compact(whole, jose_key(algorithm), algorithms=[str(algorithm.jws)]).payload == MESSAGE


def jose_key(algorithm: SigningAlgorithm) -> JoseKey:
    jwk = to_jwk(version(algorithm=algorithm, public_key=key_for(algorithm)[1]))
    assert jwk is not None
    return import_key(dict(jwk))


NO_DER = [each.name for each in ALGORITHMS.values() if each.kind is not KeyKind.EC]
NO_ETHEREUM = [each.name for each in ALGORITHMS.values() if each.hash_name is not HashName.KECCAK256]
MESSAGE_KIND, DIGEST_KIND = InputKind.MESSAGE, InputKind.DIGEST


@pytest.mark.parametrize(
    ("name", "given", "output_format", "reason", "field"),
    [
        *((name, (MESSAGE_KIND, 9), OutputFormat.DER, Reason.FORMAT_NOT_SUPPORTED, "output_format") for name in NO_DER),
        *(
            (name, (MESSAGE_KIND, 9), OutputFormat.ETHEREUM, Reason.FORMAT_NOT_SUPPORTED, "output_format")
            for name in NO_ETHEREUM
        ),
        *(
            ("ECDSA_SECP256K1_KECCAK256", (MESSAGE_KIND, 9), jose, Reason.FORMAT_NOT_SUPPORTED, "output_format")
            for jose in (OutputFormat.JWS_COMPACT, OutputFormat.JWS_DETACHED)
        ),
        *(
            (name, (DIGEST_KIND, 32), jose, Reason.FORMAT_NOT_SUPPORTED, "output_format")
            for name in ("ECDSA_P256_SHA256", "RSA_PSS_2048_SHA256")
            for jose in (OutputFormat.JWS_COMPACT, OutputFormat.JWS_DETACHED)
        ),
        *(
            (name, (DIGEST_KIND, size), OutputFormat.RAW, Reason.FORMAT_NOT_SUPPORTED, "digest")
            for name in ("ED25519", "ED448")
            for size in (32, 57, 64)
        ),
        *(
            (each.name, (DIGEST_KIND, each.hash_name.size + wrong), OutputFormat.RAW, Reason.INVALID_FIELD, "digest")
            for each in ALGORITHMS.values()
            if each.hash_name is not None
            for wrong in (-1, 1)
        ),
        ("ECDSA_P384_SHA384", (DIGEST_KIND, 32), OutputFormat.DER, Reason.INVALID_FIELD, "digest"),
        ("ECDSA_P256_SHA256", (DIGEST_KIND, 0), OutputFormat.RAW, Reason.INVALID_FIELD, "digest"),
    ],
)
def test_a_combination_that_does_not_fit_is_refused(
    name: str, given: tuple[InputKind, int], output_format: OutputFormat, reason: Reason, field: str
) -> None:
    kind, size = given
    with pytest.raises(SignerError) as caught:
        plan_signature(version(algorithm=ALGORITHMS[name]), kind, bytes(size), output_format)
    assert (caught.value.reason, caught.value.field) == (reason, field)
    assert name in caught.value.message
