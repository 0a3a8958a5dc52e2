"""A certificate authority for development: ECDSA P-256, its key in a file. Production is given its certificates."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

CA_LIFETIME = timedelta(days=3653)
LEAF_LIFETIME = timedelta(days=365)
# A client whose clock is a little behind can use a certificate at once.
_BACKDATED = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class PemPair:
    """A certificate and its private key (PKCS#8, not encrypted), both PEM."""

    certificate: bytes
    private_key: bytes


@dataclass(frozen=True, slots=True)
class DevelopmentCa:
    """Issues leaves that live a year; `now` is always aware of its zone."""

    certificate: x509.Certificate
    private_key: ec.EllipticCurvePrivateKey

    @classmethod
    def create(cls, common_name: str, now: datetime) -> DevelopmentCa:
        """Make a self-signed authority that lives ten years."""
        private_key = ec.generate_private_key(ec.SECP256R1())
        name = _name(common_name)
        builder = (
            _builder(name, name, private_key.public_key(), now, CA_LIFETIME)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_key_usage(signs_certificates=True), critical=True)
        )
        return cls(builder.sign(private_key, hashes.SHA256()), private_key)

    @property
    def pem(self) -> PemPair:
        """The authority itself, as it is kept in files."""
        return _pem_pair(self.certificate, self.private_key)

    def issue_server(self, names: Sequence[str], now: datetime) -> PemPair:
        """Certify a server under DNS names and IP addresses."""
        return self._issue(names[0], [_general_name(name) for name in names], ExtendedKeyUsageOID.SERVER_AUTH, now)

    def issue_client(self, spiffe_id: str, now: datetime) -> PemPair:
        """Certify a client by its SPIFFE id, the only URI in it (SPIFFE X509-SVID section 2)."""
        return self._issue(
            spiffe_id.rpartition("/")[2],
            [x509.UniformResourceIdentifier(spiffe_id)],
            ExtendedKeyUsageOID.CLIENT_AUTH,
            now,
        )

    def _issue(
        self, common_name: str, names: Sequence[x509.GeneralName], purpose: x509.ObjectIdentifier, now: datetime
    ) -> PemPair:
        private_key = ec.generate_private_key(ec.SECP256R1())
        builder = (
            _builder(_name(common_name), self.certificate.subject, private_key.public_key(), now, LEAF_LIFETIME)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self.private_key.public_key()), critical=False
            )
        )
        return _pem_pair(builder.sign(self.private_key, hashes.SHA256()), private_key)


def _name(common_name: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "hsmsigner development"),
            x509.NameAttribute(NameOID.COMMON_NAME, common_name[:64]),
        ]
    )


def _general_name(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)


def _builder(
    subject: x509.Name, issuer: x509.Name, public_key: ec.EllipticCurvePublicKey, now: datetime, lifetime: timedelta
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATED)
        .not_valid_after(now + lifetime)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
    )


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _pem_pair(certificate: x509.Certificate, private_key: ec.EllipticCurvePrivateKey) -> PemPair:
    return PemPair(
        certificate.public_bytes(serialization.Encoding.PEM),
        private_key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ),
    )
