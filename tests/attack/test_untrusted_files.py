"""Files that people edit while the appliance runs: odd content is refused and named, and never weakens what was."""

from __future__ import annotations

import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest

from hsmsigner.api.tls import CertificateFiles
from hsmsigner.config import Settings, load_settings
from hsmsigner.domain.policy_document import parse_policy
from hsmsigner.domain.positioned_yaml import DocumentError
from hsmsigner.errors import ConfigurationError
from hsmsigner.provision import initialise_state

FINGERPRINT = "ab" * 32


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    initialise_state(tmp_path / "state", listen="127.0.0.1:8443", now=datetime.now(UTC))
    return load_settings(tmp_path / "state" / "hsmsigner.yaml")


def test_a_number_in_base_sixty_that_no_float_holds_is_a_fault_of_the_document() -> None:
    document = "version: " + ":".join(["1"] * 200) + ".5\ngrants: []\nkeys: []\n"
    with pytest.raises(DocumentError):
        parse_policy(document.encode(), 1)


@pytest.mark.parametrize(
    "line",
    [
        "sha256 Fingerprint=" + ":".join(["AB"] * 32),
        " ".join(["ab"] * 32),
        "0x" + FINGERPRINT,
        "\ufeff" + FINGERPRINT,
        "aa" * 20,
        "%%%",
    ],
    ids=["as openssl prints it", "with spaces", "with 0x", "with a byte order mark", "SHA-1", "garbage"],
)
def test_a_line_of_the_revocation_list_that_revokes_nobody_is_refused(settings: Settings, line: str) -> None:
    revoked = settings.tls.certificate.with_name("revoked")
    revoked.write_text(line + "\n", "utf-8")
    tls = settings.tls.model_copy(update={"revoked": revoked})
    try:
        files = CertificateFiles(tls)
    except ConfigurationError:
        return
    assert files.is_revoked(FINGERPRINT), "the line was taken, and revokes nobody"


def test_a_comment_with_an_umlaut_does_not_disable_the_revocation_list(settings: Settings) -> None:
    revoked = settings.tls.certificate.with_name("revoked")
    revoked.write_text(f"# für Jörg\n{FINGERPRINT}\n", "utf-8")
    assert CertificateFiles(settings.tls.model_copy(update={"revoked": revoked})).is_revoked(FINGERPRINT)


def test_a_server_key_on_a_curve_nobody_knows_leaves_the_last_good_one(settings: Settings) -> None:
    files = CertificateFiles(settings.tls)
    key = subprocess.run(
        ["openssl", "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:secp112r1"],
        capture_output=True,
        check=True,
    ).stdout
    settings.tls.private_key.write_bytes(key)
    files.refresh()
