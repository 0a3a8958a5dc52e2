from __future__ import annotations

import socket
import ssl
import threading
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from hsmsigner.dev_ca import DevelopmentCa, PemPair

NOW = datetime(2026, 11, 20, 10, 42, tzinfo=UTC)
ENGINE = "spiffe://dev.hsmsigner/settlement/engine-1"


@pytest.fixture(scope="module")
def authority() -> DevelopmentCa:
    return DevelopmentCa.create("test CA", NOW)


def certificate_of(pair: PemPair) -> x509.Certificate:
    return x509.load_pem_x509_certificate(pair.certificate)


def builder_for(authority: DevelopmentCa, when: datetime) -> PolicyBuilder:
    return PolicyBuilder().store(Store([authority.certificate])).time(when)


def test_server_certificate_verifies_for_its_names(authority: DevelopmentCa) -> None:
    leaf = certificate_of(authority.issue_server(["localhost", "127.0.0.1", "::1"], NOW))

    for subject in (
        x509.DNSName("localhost"),
        x509.IPAddress(ip_address("127.0.0.1")),
        x509.IPAddress(ip_address("::1")),
    ):
        builder_for(authority, NOW).build_server_verifier(subject).verify(leaf, [])
    with pytest.raises(VerificationError):
        builder_for(authority, NOW).build_server_verifier(x509.DNSName("elsewhere")).verify(leaf, [])


def test_client_certificate_verifies_and_carries_one_spiffe_id(authority: DevelopmentCa) -> None:
    leaf = certificate_of(authority.issue_client(ENGINE, NOW))

    verified = builder_for(authority, NOW).build_client_verifier().verify(leaf, [])

    assert verified.subjects == [x509.UniformResourceIdentifier(ENGINE)]


def test_client_certificate_is_no_server_certificate(authority: DevelopmentCa) -> None:
    leaf = certificate_of(authority.issue_client(ENGINE, NOW))

    usage = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value

    assert list(usage) == [ExtendedKeyUsageOID.CLIENT_AUTH]


def test_leaves_live_a_year_and_the_authority_ten(authority: DevelopmentCa) -> None:
    leaf = certificate_of(authority.issue_client(ENGINE, NOW))

    builder_for(authority, NOW + timedelta(days=364)).build_client_verifier().verify(leaf, [])
    with pytest.raises(VerificationError):
        builder_for(authority, NOW + timedelta(days=366)).build_client_verifier().verify(leaf, [])
    assert authority.certificate.not_valid_after_utc - NOW > timedelta(days=3650)


def test_certificate_of_another_authority_is_not_verified(authority: DevelopmentCa) -> None:
    leaf = certificate_of(DevelopmentCa.create("test CA", NOW).issue_client(ENGINE, NOW))

    with pytest.raises(VerificationError):
        builder_for(authority, NOW).build_client_verifier().verify(leaf, [])


def test_mutual_tls_1_3_handshake_with_the_files(tmp_path: Path) -> None:
    now = datetime.now(UTC)
    authority = DevelopmentCa.create("test CA", now)
    (tmp_path / "ca.pem").write_bytes(authority.pem.certificate)
    contexts = []
    for name, pair, purpose in (
        ("server", authority.issue_server(["localhost"], now), ssl.Purpose.CLIENT_AUTH),
        ("client", authority.issue_client(ENGINE, now), ssl.Purpose.SERVER_AUTH),
    ):
        (tmp_path / f"{name}.pem").write_bytes(pair.certificate)
        (tmp_path / f"{name}-key.pem").write_bytes(pair.private_key)
        context = ssl.create_default_context(purpose, cafile=str(tmp_path / "ca.pem"))
        context.load_cert_chain(tmp_path / f"{name}.pem", tmp_path / f"{name}-key.pem")
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.verify_mode = ssl.CERT_REQUIRED
        contexts.append(context)

    peer = handshake(*contexts)

    assert ("URI", ENGINE) in peer["subjectAltName"]


def handshake(server: ssl.SSLContext, client: ssl.SSLContext) -> dict[str, list[tuple[str, str]]]:
    """What the server sees of the client."""
    ours, theirs = socket.socketpair()

    def connect() -> None:
        with client.wrap_socket(theirs, server_hostname="localhost") as secured:
            secured.sendall(b"x")

    thread = threading.Thread(target=connect)
    thread.start()
    with server.wrap_socket(ours, server_side=True) as secured:
        assert secured.recv(1) == b"x"
        peer = secured.getpeercert()
    thread.join()
    return peer  # type: ignore[return-value] # the dictionary form, as binary_form is False
