"""Certification requests as the openssl command and `cryptography` read them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from cryptography import x509

from hsmsigner.domain.algorithm import ALGORITHMS
from hsmsigner.domain.certificate import check_certificate_chain
from hsmsigner.domain.certificate_names import WantedCertificate
from hsmsigner.domain.certificate_request import plan_certificate_request, plan_self_signed
from hsmsigner.errors import Reason, SignerError
from tests.continuity import DAY, START, Pair, make_pair

WANTED = WantedCertificate(
    "CN=settlement-eu,O=Bank\\, Ltd,C=DE",
    dns_names=("signer.bank.example", "*.bank.example"),
    uris=("spiffe://bank.example/settlement",),
    ip_addresses=("192.0.2.7", "2001:db8::1"),
    email_addresses=("ops@bank.example",),
    key_usages=("digital_signature", "content_commitment"),
    extended_key_usages=("1.3.6.1.5.5.7.3.36",),
)
# The size of the modulus changes nothing in the form.
NAMED_IN_X509 = [name for name in ALGORITHMS if not any(part in name for part in ("KECCAK", "3072", "4096"))]


def request_of(pair: Pair, wanted: WantedCertificate = WANTED) -> str:
    plan = plan_certificate_request(pair.version, wanted)
    return plan.finish(pair.sign(plan.to_be_signed))


@pytest.mark.parametrize("algorithm", NAMED_IN_X509)
def test_request_is_accepted_by_openssl_and_cryptography(algorithm: str, tmp_path: Path) -> None:
    pair = make_pair(algorithm=algorithm)
    pem = request_of(pair)
    (tmp_path / "request.pem").write_text(pem)

    shown = subprocess.run(
        ["openssl", "req", "-verify", "-noout", "-subject", "-in", tmp_path / "request.pem"],
        capture_output=True,
        text=True,
        check=False,
    )

    assert shown.returncode == 0, shown.stderr
    assert "verify OK" in shown.stdout + shown.stderr
    request = x509.load_pem_x509_csr(pem.encode())
    assert request.is_signature_valid
    assert request.public_key() == pair.private_key.public_key()


def test_request_says_what_was_wanted() -> None:
    request = x509.load_pem_x509_csr(request_of(make_pair()).encode())

    names = request.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    usage = request.extensions.get_extension_for_class(x509.KeyUsage)
    extended = request.extensions.get_extension_for_class(x509.ExtendedKeyUsage)
    assert request.subject.rfc4514_string() == WANTED.subject
    assert names.value.get_values_for_type(x509.DNSName) == list(WANTED.dns_names)
    assert names.value.get_values_for_type(x509.UniformResourceIdentifier) == list(WANTED.uris)
    assert [str(address) for address in names.value.get_values_for_type(x509.IPAddress)] == list(WANTED.ip_addresses)
    assert names.value.get_values_for_type(x509.RFC822Name) == list(WANTED.email_addresses)
    assert (usage.critical, usage.value.digital_signature, usage.value.content_commitment) == (True, True, True)
    assert not usage.value.key_cert_sign
    assert [usage.dotted_string for usage in extended.value] == list(WANTED.extended_key_usages)


def test_key_usage_is_digital_signature_unless_told() -> None:
    request = x509.load_pem_x509_csr(request_of(make_pair(), WantedCertificate("CN=a")).encode())

    usage = request.extensions.get_extension_for_class(x509.KeyUsage).value
    assert usage.digital_signature
    assert not usage.content_commitment


def test_alternative_name_alone_is_enough_and_critical() -> None:
    request = x509.load_pem_x509_csr(request_of(make_pair(), WantedCertificate("", dns_names=("a.example",))).encode())

    assert request.extensions.get_extension_for_class(x509.SubjectAlternativeName).critical


@pytest.mark.parametrize("algorithm", NAMED_IN_X509)
def test_self_signed_certificate_verifies_under_itself(algorithm: str, tmp_path: Path) -> None:
    pair = make_pair(algorithm=algorithm)
    plan = plan_self_signed(pair.version, WANTED, START, 30 * DAY)
    pem = plan.finish(pair.sign(plan.to_be_signed))
    (tmp_path / "self.pem").write_text(pem)

    moment = str(START // 1_000_000 + 60)
    done = subprocess.run(
        ["openssl", "verify", "-attime", moment, "-check_ss_sig", "-CAfile", tmp_path / "self.pem", "self.pem"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    chain = check_certificate_chain(pem, pair.version.public_key, START)
    assert (chain.expire_time, chain.subject) == (START + 30 * DAY, WANTED.subject)
    x509.load_pem_x509_certificate(pem.encode()).verify_directly_issued_by(x509.load_pem_x509_certificate(pem.encode()))


@pytest.mark.parametrize("lifetime", [0, -DAY, 59_000_000, 367 * DAY])
def test_self_signed_certificate_is_not_for_long(lifetime: int) -> None:
    with pytest.raises(SignerError) as caught:
        plan_self_signed(make_pair().version, WANTED, START, lifetime)

    assert (caught.value.reason, caught.value.field) == (Reason.INVALID_FIELD, "self_signed_lifetime")


@pytest.mark.parametrize(
    ("wanted", "field"),
    [
        (WantedCertificate(""), "subject"),
        (WantedCertificate("settlement-eu"), "subject"),
        (WantedCertificate("CN="), "subject"),
        (WantedCertificate("C=Germany"), "subject"),
        (WantedCertificate("CN=" + "a" * 2000), "subject"),
        (WantedCertificate("CN=a", dns_names=("not a name",)), "dns_names"),
        (WantedCertificate("CN=a", dns_names=("a.example",) * 101), "dns_names"),
        (WantedCertificate("CN=a", dns_names=("\u017figner.example",)), "dns_names"),
        (WantedCertificate("2.5.4.6=é"), "subject"),
        (WantedCertificate("2.5.4.5=*@"), "subject"),
        (WantedCertificate("1.2.840.113549.1.9.1=é"), "subject"),
        (WantedCertificate("CN=a", uris=("no-scheme",)), "uris"),
        (WantedCertificate("CN=a", uris=("http://[",)), "uris"),
        (WantedCertificate("CN=a", ip_addresses=("300.1.1.1",)), "ip_addresses"),
        (WantedCertificate("CN=a", ip_addresses=("fe80::1%eth0",)), "ip_addresses"),
        (WantedCertificate("CN=a", email_addresses=("nobody",)), "email_addresses"),
        (WantedCertificate("CN=a", email_addresses=("a@b.example\n",)), "email_addresses"),
        (WantedCertificate("CN=a", email_addresses=("a@b.example\0",)), "email_addresses"),
        (WantedCertificate("CN=a", key_usages=("key_agreement",)), "key_usages"),
        (WantedCertificate("CN=a", extended_key_usages=("serverAuth",)), "extended_key_usages"),
        (WantedCertificate("CN=a", extended_key_usages=("2.5.29", "2.5.29")), "extended_key_usages"),
    ],
)
def test_field_that_is_wrong_is_named(wanted: WantedCertificate, field: str) -> None:
    with pytest.raises(SignerError) as caught:
        plan_certificate_request(make_pair().version, wanted)

    assert (caught.value.reason, caught.value.field) == (Reason.INVALID_FIELD, field)


def test_ethereum_key_has_no_request() -> None:
    with pytest.raises(SignerError) as caught:
        plan_certificate_request(make_pair(algorithm="ECDSA_SECP256K1_KECCAK256").version, WANTED)

    assert caught.value.reason is Reason.ALGORITHM_NOT_SUPPORTED
