"""Who may connect, and what becomes of those who may not: mTLS, garbage, reload, revocation, health, two appliances."""

from __future__ import annotations

import hashlib
import json
import os
import re
import socket
import ssl
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme

from hsmsigner.client import Refused, SigningClientError
from hsmsigner.client.credentials import Profile
from tests.builder import record_types
from tests.e2e.appliance import KEY, PATIENCE_S, Appliance, running_appliance, until


@pytest.fixture(scope="module")
def appliance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Appliance]:
    folder = tmp_path_factory.mktemp("edge")
    revoked = folder / "revoked.txt"
    revoked.touch()
    with running_appliance(folder, tls={"revoked": str(revoked)}) as appliance:
        yield appliance


def still_signs(appliance: Appliance) -> bool:
    with appliance.client() as client:
        return bool(client.sign(KEY, b"still here").signature)


def handshake(appliance: Appliance, context: ssl.SSLContext) -> str:
    """Speak TLS and read a byte: with TLS 1.3 a refused client learns of it at its first read."""
    with (
        socket.create_connection(("127.0.0.1", appliance.port), 30) as raw,
        context.wrap_socket(raw, server_hostname="localhost") as secured,
    ):
        secured.settimeout(30)
        secured.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00")
        assert secured.recv(1)
        return str(secured.version())


def client_context(appliance: Appliance, certificate: Path | None = None, key: Path | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(appliance.state / "tls/ca.pem"))
    context.set_alpn_protocols(["h2"])
    if certificate is not None:
        context.load_cert_chain(certificate, key)
    return context


def own_context(appliance: Appliance) -> ssl.SSLContext:
    return client_context(appliance, appliance.state / "tls/engine.pem", appliance.state / "tls/engine-key.pem")


def test_tls_1_3_is_spoken_and_tls_1_2_is_refused(appliance: Appliance) -> None:
    assert handshake(appliance, own_context(appliance)) == "TLSv1.3"

    old = own_context(appliance)
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(OSError, match=r"(?i)alert|reset|handshake|eof"):
        handshake(appliance, old)


def test_a_client_without_a_certificate_is_refused(appliance: Appliance) -> None:
    with pytest.raises((OSError, AssertionError)):
        handshake(appliance, client_context(appliance))
    assert still_signs(appliance)


def test_a_client_of_another_ca_is_refused(appliance: Appliance, tmp_path: Path) -> None:
    leaf = trustme.CA().issue_cert("spiffe.example", common_name="spiffe://dev.hsmsigner/settlement/engine-1")
    leaf.private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "other.pem"))

    with pytest.raises((OSError, AssertionError)):
        handshake(appliance, client_context(appliance, tmp_path / "other.pem"))
    assert still_signs(appliance)


def test_an_expired_client_is_refused(appliance: Appliance, tmp_path: Path) -> None:
    ca = trustme.CA.from_pem(
        (appliance.state / "tls/ca.pem").read_bytes(), (appliance.state / "tls/ca-key.pem").read_bytes()
    )
    long_ago = datetime.now(UTC) - timedelta(days=1)
    leaf = ca.issue_cert(common_name="engine", not_after=long_ago)
    leaf.private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "expired.pem"))

    with pytest.raises((OSError, AssertionError)):
        handshake(appliance, client_context(appliance, tmp_path / "expired.pem"))
    assert still_signs(appliance)


@pytest.mark.parametrize(
    "garbage", [b"", b"\x00" * 100, b"GET / HTTP/1.1\r\n\r\n", bytes(range(256)) * 64, b"\x16\x03\x01\xff\xff"]
)
def test_garbage_on_the_port_harms_nobody(appliance: Appliance, garbage: bytes) -> None:
    for _ in range(20):
        with socket.create_connection(("127.0.0.1", appliance.port), 30) as connection:
            connection.sendall(garbage)

    assert still_signs(appliance)


def test_garbage_inside_tls_harms_nobody(appliance: Appliance) -> None:
    for _ in range(10):
        with (
            socket.create_connection(("127.0.0.1", appliance.port), 30) as raw,
            own_context(appliance).wrap_socket(raw, server_hostname="localhost") as secured,
        ):
            secured.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(range(256)) * 40)

    assert still_signs(appliance)


def test_unknown_and_forbidden_keys_answer_alike(appliance: Appliance) -> None:
    with appliance.client("stranger") as client:
        answers = []
        for name in (KEY, "keys/not-there"):
            with pytest.raises(Refused) as caught:
                client.sign(name, b"x")
            answers.append((caught.value.reason, caught.value.message.replace(name, "NAME"), caught.value.metadata))

    assert answers[0] == answers[1]


def test_health_is_told_per_service_and_unknown_services_are_not_serving(appliance: Appliance) -> None:
    with appliance.client("operator") as client:
        assert client.health("hsmsigner.v1.SigningService", PATIENCE_S)
        assert client.health("hsmsigner.v1.AuditService", PATIENCE_S)
        assert not client.health("hsmsigner.v1.NoSuchService", PATIENCE_S)


def test_a_revoked_client_is_refused_at_its_next_call_on_an_open_connection(appliance: Appliance) -> None:
    der = ssl.PEM_cert_to_DER_cert((appliance.state / "tls/auditor.pem").read_text())
    revoked = appliance.state.parent / "revoked.txt"
    with appliance.client("auditor") as client:
        client.audit_page()

        revoked.write_text(f"# lost laptop\n{hashlib.sha256(der).hexdigest()}\n")

        def is_refused() -> bool:
            try:
                client.audit_page()
            except SigningClientError as error:
                return error.reason == "UNAUTHENTICATED"
            return False

        until(is_refused, "the revoked client is refused")


def test_a_new_server_certificate_is_served_without_a_restart(appliance: Appliance) -> None:
    def served() -> bytes | None:
        with (
            socket.create_connection(("127.0.0.1", appliance.port), 30) as raw,
            own_context(appliance).wrap_socket(raw, server_hostname="localhost") as secured,
        ):
            return secured.getpeercert(binary_form=True)

    before = served()
    ca = trustme.CA.from_pem(
        (appliance.state / "tls/ca.pem").read_bytes(), (appliance.state / "tls/ca-key.pem").read_bytes()
    )
    leaf = ca.issue_cert("localhost", "127.0.0.1")
    # The key first: between the two writes the pair does not match, and the old one must stay in use.
    leaf.private_key_pem.write_to_path(str(appliance.state / "tls/server-key.pem"))
    assert served() == before
    leaf.cert_chain_pems[0].write_to_path(str(appliance.state / "tls/server.pem"))

    until(lambda: served() != before, "the new certificate is served")
    assert still_signs(appliance)


def test_a_second_appliance_on_one_state_folder_refuses_and_names_the_first(appliance: Appliance) -> None:
    assert appliance.process is not None
    second = Appliance(appliance.state)

    code = second.launch().wait(PATIENCE_S)

    assert code == 3
    assert f"process {appliance.process.pid}" in second.log_file.read_text()
    assert still_signs(appliance)


def test_the_operational_log_holds_neither_messages_nor_the_pin(appliance: Appliance) -> None:
    message = b"a very particular payment of 123456.78"
    with appliance.client() as client:
        client.sign(KEY, message)
    log = appliance.log_file.read_text()

    assert message.decode() not in log
    assert (appliance.state / "token/user.pin").read_text().strip() not in log
    for line in log.splitlines():
        if line.startswith("{"):
            json.loads(line)


@pytest.mark.skipif(os.geteuid() != 0, reason="the kernel shows a hardened process's memory map to root alone")
def test_only_the_token_worker_has_the_pin_and_the_module(appliance: Appliance) -> None:
    (frontend,), (worker,) = appliance.children("frontend"), appliance.children("token-worker")

    assert "softhsm" in Path(f"/proc/{worker}/maps").read_text()
    assert "softhsm" not in Path(f"/proc/{frontend}/maps").read_text()
    for pid in (frontend, worker):
        limits = Path(f"/proc/{pid}/limits").read_text()
        assert re.search(r"Max core file size\s+0\s+0", limits)


def test_the_signature_verifies_with_the_openssl_command(appliance: Appliance, tmp_path: Path) -> None:
    with appliance.client() as client:
        signature = client.sign(KEY, b"a message", output_format="DER")
        (tmp_path / "key.pem").write_text(client.get_public_key(KEY).pem)
    (tmp_path / "signature").write_bytes(signature.signature)
    (tmp_path / "message").write_bytes(b"a message")

    verdict = subprocess.run(
        ["openssl", "dgst", "-sha256", "-verify", "key.pem", "-signature", "signature", "message"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )

    assert verdict.stdout == "Verified OK\n"


def test_sigterm_finishes_what_was_taken_in_and_exits_with_0(tmp_path: Path) -> None:
    with running_appliance(tmp_path) as appliance:
        with appliance.client() as client:
            client.sign(KEY, b"x")
        assert appliance.stop() == 0
        types = record_types(appliance.database)
        assert types.count("sign.completed") == types.count("sign.authorized") == 1
        assert not (appliance.state / "run/frontend.address").exists()


def test_a_wrong_pin_stops_the_start_after_one_try(tmp_path: Path) -> None:
    appliance = Appliance(tmp_path / "state")
    appliance.initialise()
    (appliance.state / "token/user.pin").write_text("11111111\n")

    code = appliance.launch().wait(PATIENCE_S)

    log = appliance.log_file.read_text()
    assert code == 3
    assert log.count('"text": "process started", "role": "token-worker"') == 1
    assert "11111111" not in log


def test_a_taken_port_stops_the_start_and_says_so(tmp_path: Path) -> None:
    appliance = Appliance(tmp_path / "state")
    appliance.initialise()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", appliance.port))
        taken.listen()

        code = appliance.launch().wait(PATIENCE_S)

    assert code == 3
    assert "the port is taken" in appliance.log_file.read_text()


def test_a_broken_profile_says_what_is_wrong(appliance: Appliance, tmp_path: Path) -> None:
    broken = tmp_path / "profile.yaml"
    broken.write_text("server: 127.0.0.1:1\n")

    with pytest.raises(Exception, match="profile"):
        Profile.load(broken)
