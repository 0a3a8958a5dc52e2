"""Which certificates may be attached to a version."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from hsmsigner.domain.certificate import chain_expire_time, check_certificate_chain, to_x5c
from hsmsigner.domain.instant import Instant
from hsmsigner.errors import Reason, SignerError
from tests.continuity import DAY, START, Pair, make_pair

NOW = datetime.fromtimestamp(START / 1_000_000, UTC)


def name(text: str) -> x509.Name:
    return x509.Name.from_rfc4514_string(f"CN={text}")


@dataclass
class Issuer:
    """A CA with one certificate of its own."""

    label: str
    private_key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))

    def certify(
        self,
        subject: str,
        public_key: object,
        *,
        days: int = 30,
        begin: datetime = NOW,
        is_ca: bool = False,
        path_length: int | None = None,
        may_certify: bool | None = None,
    ) -> str:
        builder = (
            x509.CertificateBuilder()
            .subject_name(name(subject))
            .issuer_name(name(self.label))
            .public_key(public_key)  # type: ignore[arg-type] # any that has certificates
            .serial_number(x509.random_serial_number())
            .not_valid_before(begin)
            .not_valid_after(begin + timedelta(days=days))
        )
        if is_ca:
            builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
        if may_certify is not None:
            usage = x509.KeyUsage(
                digital_signature=True,
                content_commitment=False,
                key_encipherment=False,
                data_encipherment=False,
                key_agreement=False,
                key_cert_sign=may_certify,
                crl_sign=False,
                encipher_only=False,
                decipher_only=False,
            )
            builder = builder.add_extension(usage, critical=True)
        return builder.sign(self.private_key, hashes.SHA256()).public_bytes(Encoding.PEM).decode()

    def own(self, **options: object) -> str:
        return self.certify(self.label, self.private_key.public_key(), is_ca=True, **options)  # type: ignore[arg-type]


PAIR = make_pair()
ROOT, MIDDLE = Issuer("root"), Issuer("middle")
MIDDLE_CERTIFICATE = ROOT.certify("middle", MIDDLE.private_key.public_key(), is_ca=True)


def leaf(issuer: Issuer = MIDDLE, pair: Pair = PAIR, **options: object) -> str:
    return issuer.certify("settlement-eu", pair.private_key.public_key(), **options)  # type: ignore[arg-type]


def test_chain_of_the_version_is_taken_and_written_plainly() -> None:
    text = "a comment\n" + leaf() + "\n\n" + MIDDLE_CERTIFICATE + ROOT.own()

    chain = check_certificate_chain(text, PAIR.version.public_key, START)

    assert chain.pem == leaf_first(text)
    assert (chain.subject, chain.issuer) == ("CN=settlement-eu", "CN=middle")
    assert chain.expire_time == chain_expire_time(chain.pem) == START + 30 * DAY
    assert len(to_x5c(chain.pem)) == 3


def leaf_first(text: str) -> str:
    certificates = x509.load_pem_x509_certificates(text.encode())
    return "".join(certificate.public_bytes(Encoding.PEM).decode() for certificate in certificates)


def test_chain_as_long_as_its_issuers_allow_is_taken() -> None:
    middle = ROOT.certify("middle", MIDDLE.private_key.public_key(), is_ca=True, path_length=0, may_certify=True)
    self_issued = ROOT.certify("root", ROOT.private_key.public_key(), is_ca=True)

    for issuers in (middle + ROOT.own(path_length=1), middle + self_issued + ROOT.own(path_length=1)):
        assert check_certificate_chain(leaf() + issuers, PAIR.version.public_key, START).issuer == "CN=middle"


def test_earliest_end_in_the_chain_is_when_it_expires() -> None:
    text = leaf(days=300) + MIDDLE_CERTIFICATE

    assert check_certificate_chain(text, PAIR.version.public_key, START).expire_time == START + 30 * DAY


@pytest.mark.parametrize(
    "text",
    [
        lambda: leaf(pair=make_pair()),
        lambda: MIDDLE_CERTIFICATE + leaf(),
        lambda: leaf() + ROOT.own(),
        lambda: leaf() + Issuer("middle").own(),
        lambda: leaf() + ROOT.certify("middle", MIDDLE.private_key.public_key()) + ROOT.own(),
        lambda: leaf(begin=NOW - timedelta(days=40)),
        lambda: leaf() + MIDDLE.own(begin=NOW - timedelta(days=40)),
        lambda: leaf() + MIDDLE_CERTIFICATE + ROOT.own(path_length=0),
        lambda: leaf() + MIDDLE.own(may_certify=False),
    ],
    ids=[
        "other key",
        "issuer first",
        "link left out",
        "forged issuer",
        "issuer that is none",
        "expired",
        "expired CA",
        "longer than its root allows",
        "issuer that must not certify",
    ],
)
def test_chain_that_does_not_hold_is_refused(text: Callable[[], str]) -> None:
    with pytest.raises(SignerError) as caught:
        check_certificate_chain(text(), PAIR.version.public_key, START)

    assert caught.value.reason is Reason.CERTIFICATE_INVALID


@pytest.mark.parametrize("text", ["", "not PEM", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"])
def test_text_that_is_no_certificate_is_refused(text: str) -> None:
    with pytest.raises(SignerError) as caught:
        check_certificate_chain(text, PAIR.version.public_key, START)

    assert caught.value.reason is Reason.INVALID_FIELD


def test_size_and_number_are_bounded() -> None:
    for text in (leaf() * 11, leaf() + " " * 70_000):
        with pytest.raises(SignerError) as caught:
            check_certificate_chain(text, PAIR.version.public_key, START)
        assert caught.value.reason is Reason.INVALID_FIELD


def test_certificate_for_a_version_that_is_not_active_yet_may_begin_later() -> None:
    text = leaf(begin=NOW + timedelta(days=7))

    assert check_certificate_chain(text, PAIR.version.public_key, Instant(START)).expire_time > START
