"""Values that the tests of the pure core start from; each test says what is different about its own."""

from __future__ import annotations

from functools import lru_cache

from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from hsmsigner.domain.algorithm import ALGORITHMS, KeyKind, SigningAlgorithm
from hsmsigner.domain.formats import OutputFormat
from hsmsigner.domain.instant import Instant
from hsmsigner.domain.key import CkaId, Key, KeyName, KeyState, KeyVersion, VersionName, parse_name
from hsmsigner.domain.pattern import Pattern
from hsmsigner.domain.policy import Grant, InputKind, KeyRule, Policy, Right
from hsmsigner.domain.principal import Principal
from hsmsigner.domain.quota import Quota
from hsmsigner.domain.signing import SigningRequest, parse_request_id, signing_request

NOW = Instant(1_800_000_000_000_000)
SECOND = 1_000_000
ENGINE = Principal("spiffe://test/settlement/engine-1")
OTHER_ENGINE = Principal("spiffe://test/settlement/engine-2")
STRANGER = Principal("spiffe://test/unknown/stranger")
KEY = KeyName("settlement-eu")
P256 = ALGORITHMS["ECDSA_P256_SHA256"]
UUID = "3b241101-e2bb-4255-8caf-4136c566a962"
_CURVES: dict[str, ec.EllipticCurve] = {
    "secp256r1": ec.SECP256R1(),
    "secp384r1": ec.SECP384R1(),
    "secp521r1": ec.SECP521R1(),
    "secp256k1": ec.SECP256K1(),
}


def version(
    number: int = 1,
    *,
    algorithm: SigningAlgorithm = P256,
    state: KeyState = KeyState.ACTIVE,
    public_key: bytes = b"public",
    local: bool = True,
    always_sensitive: bool = True,
    never_extractable: bool = True,
) -> KeyVersion:
    return KeyVersion(
        VersionName(KEY, number),
        algorithm,
        state,
        CkaId(bytes([number])),
        public_key,
        NOW,
        local,
        always_sensitive,
        never_extractable,
    )


def key(*versions: KeyVersion, primary: int = 1) -> Key:
    made = versions or (version(),)
    return Key(KEY, made[0].algorithm, NOW, primary, made)


def policy(*rules: KeyRule, rights: frozenset[Right] = frozenset({Right.SIGN, Right.SIGN_DIGEST})) -> Policy:
    """Grants `rights` over `keys/settlement-*` to `spiffe://test/settlement/*`."""
    grant = Grant((Pattern("spiffe://test/settlement/*"),), (Pattern("keys/settlement-*"),), rights)
    return Policy(7, "0" * 64, (grant,), rules or (key_rule(),))


def key_rule(
    *quotas: Quota, match: str = "keys/settlement-*", inputs: frozenset[InputKind] = frozenset(InputKind)
) -> KeyRule:
    return KeyRule(Pattern(match), inputs, quotas)


def quota(count: int, period_us: int, quota_id: str = "q", *, by_principal: bool = False) -> Quota:
    return Quota(quota_id, count, period_us, by_principal)


def request(
    body: bytes = b"pay",
    *,
    principal: Principal = ENGINE,
    name: str = "keys/settlement-eu",
    kind: InputKind = InputKind.MESSAGE,
    output_format: OutputFormat = OutputFormat.RAW,
    labels: dict[str, str] | None = None,
) -> SigningRequest:
    return signing_request(
        principal,
        parse_request_id(UUID),
        parse_name(name),
        kind=kind,
        body=body,
        output_format=output_format,
        labels=labels or {},
    )


@lru_cache
def private_key(kind: KeyKind, size: int, curve: str) -> PrivateKeyTypes:
    """One key pair per kind: RSA generation is the slowest thing here."""
    if kind is KeyKind.RSA:
        return rsa.generate_private_key(65537, size)
    if kind is KeyKind.EC:
        return ec.generate_private_key(_CURVES[curve])
    return ed25519.Ed25519PrivateKey.generate() if curve == "ed25519" else ed448.Ed448PrivateKey.generate()


def key_for(algorithm: SigningAlgorithm) -> tuple[PrivateKeyTypes, bytes]:
    """A private key of this algorithm, and its SubjectPublicKeyInfo in DER."""
    private = private_key(algorithm.kind, algorithm.size, algorithm.curve)
    return private, private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
