from __future__ import annotations

from pathlib import Path

import pytest

from hsmsigner.client import Credentials, Profile, ProfileError
from tests.client.fake_server import Authority

GOOD = "server: 127.0.0.1:8443\nca: ../tls/ca.pem\ncertificate: ../tls/a.pem\nprivate_key: ../tls/a-key.pem\n"


@pytest.fixture
def profile(tmp_path: Path, authority: Authority) -> Path:
    for folder in ("tls", "profiles"):
        (tmp_path / folder).mkdir()
    (tmp_path / "tls/ca.pem").write_bytes(authority.credentials.ca)
    (tmp_path / "tls/a.pem").write_bytes(authority.credentials.certificate)
    (tmp_path / "tls/a-key.pem").write_bytes(authority.credentials.private_key)
    path = tmp_path / "profiles/a.yaml"
    path.write_text(GOOD)
    return path


def test_profile_names_files_relative_to_itself(profile: Path, authority: Authority) -> None:
    assert Profile.load(profile) == Profile("127.0.0.1:8443", authority.credentials)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[]", "must be a YAML mapping"),
        ("{", "not valid YAML"),
        ("server: 2026-13-45", "not valid YAML"),
        ("server: a:1\n", "lacks ca, certificate, private_key"),
        (GOOD + "pin: 1234\n", "unknown fields: pin"),
        (GOOD.replace("127.0.0.1:8443", "8443"), "server must be text"),
        (GOOD.replace("tls/a.pem", "tls/b.pem"), "certificate: cannot read"),
        (GOOD.replace("a-key.pem", "a.pem"), "private_key: .* holds no PEM"),
    ],
)
def test_profile_that_cannot_be_used_says_why(profile: Path, text: str, words: str) -> None:
    profile.write_text(text)
    with pytest.raises(ProfileError, match=words):
        Profile.load(profile)


def test_missing_profile_says_so(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match="cannot read profile"):
        Profile.load(tmp_path / "none.yaml")


def test_credentials_do_not_print_themselves(authority: Authority) -> None:
    assert "PRIVATE" not in repr(Profile("a:1", authority.credentials))
    assert repr(authority.credentials) == "Credentials(hidden)"
    assert isinstance(authority.credentials, Credentials)
