"""Settings: read once, unknown keys refused, secrets hidden."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from hsmsigner.config import PinSource, Secret, Settings, load_settings
from hsmsigner.errors import ConfigurationError

GOOD = {
    "tls": {"certificate": "tls/server.pem", "private_key": "tls/server-key.pem", "client_ca": "tls/ca.pem"},
    "token": {
        "label": "dev",
        "module": "/usr/lib/softhsm/libsofthsm2.so",
        "pin": {"file": "token/user.pin"},
        "environment": {"SOFTHSM2_CONF": "${CONFIG_DIR}/token/softhsm2.conf"},
    },
    "policy": "policy.yaml",
}


def load(folder: Path, **changes: object) -> Settings:
    path = folder / "hsmsigner.yaml"
    path.write_text(yaml.safe_dump(GOOD | changes), "utf-8")
    return load_settings(path)


def refusal(folder: Path, **changes: object) -> str:
    with pytest.raises(ConfigurationError) as caught:
        load(folder, **changes)
    return str(caught.value)


def token(**changes: object) -> dict[str, object]:
    return {**GOOD["token"], **changes}  # type: ignore[dict-item]  # a literal of mixed values


def test_relative_paths_are_relative_to_the_file_whatever_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir("/")
    settings = load(tmp_path, tls={**GOOD["tls"], "revoked": "tls/revoked"}, state_dir="state")  # type: ignore[dict-item]
    assert settings.state_dir == tmp_path / "state"
    assert settings.policy == tmp_path / "policy.yaml"
    assert settings.tls.certificate == tmp_path / "tls/server.pem"
    assert settings.tls.private_key == tmp_path / "tls/server-key.pem"
    assert settings.tls.client_ca == tmp_path / "tls/ca.pem"
    assert settings.tls.revoked == tmp_path / "tls/revoked"
    assert settings.token.pin.file == tmp_path / "token/user.pin"
    assert settings.token.environment == {"SOFTHSM2_CONF": f"{tmp_path}/token/softhsm2.conf"}
    assert settings.store_url == f"sqlite:///{tmp_path}/state/store.sqlite3"
    assert settings.token_socket == tmp_path / "state/run/token.sock"
    assert settings.address_file == tmp_path / "state/run/frontend.address"


def test_absolute_paths_stay_as_they_are(tmp_path: Path) -> None:
    settings = load(tmp_path, policy="/etc/hsmsigner/policy.yaml", store="sqlite:////srv/store.sqlite3")
    assert settings.policy == Path("/etc/hsmsigner/policy.yaml")
    assert settings.token.module == Path("/usr/lib/softhsm/libsofthsm2.so")
    assert settings.store_url == "sqlite:////srv/store.sqlite3"
    assert settings.store_file == Path("/srv/store.sqlite3")


def test_a_store_is_in_the_state_folder_whatever_that_is_called(tmp_path: Path) -> None:
    settings = load(tmp_path, state_dir="state #1 100%25?")
    assert settings.store_file == tmp_path / "state #1 100%25?" / "store.sqlite3"


@pytest.mark.parametrize(
    ("module", "expected"), [("libsofthsm2.so", "libsofthsm2.so"), ("lib/m.so", "{base}/lib/m.so")]
)
def test_a_bare_module_name_is_left_to_the_loader(tmp_path: Path, module: str, expected: str) -> None:
    settings = load(tmp_path, token=token(module=module))
    assert str(settings.token.module) == expected.format(base=tmp_path)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"polcy": "x"}, "polcy"),
        ({"tls": {**GOOD["tls"], "min_version": "1.2"}}, "tls.min_version"),  # type: ignore[dict-item]
        ({"token": token(pin={"file": "a", "pin": "1234"})}, "token.pin.pin"),
        ({"limits": {"message_byte": 1}}, "limits.message_byte"),
        ({"log": {"level": "TRACE"}}, "log.level"),
        ({"listen": "8443"}, "listen"),
        ({"listen": "host:port"}, "listen"),
        ({"listen": "host:1\n"}, "listen"),
        ({"listen": "host:65536"}, "listen"),
        ({"store": "postgresql+psycopg://host/name"}, "store"),
        ({"store": ":::"}, "store"),
        ({"limits": {"message_bytes": 0}}, "limits.message_bytes"),
        ({"limits": {"message_bytes": 2**27}}, "limits.message_bytes"),
        ({"limits": {"queue": 1023}}, "limits.queue"),
        ({"limits": {"queue_bytes": 2**23 - 1}}, "limits.queue_bytes"),
        ({"limits": {"queue_bytes": 2**23, "message_bytes": 2**24}}, "limits"),
        ({"limits": {"request_retention_s": 1}}, "limits.request_retention_s"),
        ({"token": token(threads=0)}, "token.threads"),
        ({"token": token(call_timeout_s=0)}, "token.call_timeout_s"),
        ({"token": token(label="")}, "token.label"),
        ({"token": token(label="a" * 33)}, "token.label"),
        ({"token": token(protection_level="VAULT")}, "token.protection_level"),
        ({"policy": None}, "policy"),
        ({"frontend_cpu": -1}, "frontend_cpu"),
        ({"frontend_cpu": "all"}, "frontend_cpu"),
        ({"store": "sqlite:///:memory:"}, "store"),
        ({"store": "sqlite:///relative.sqlite3"}, "store"),
        ({"tls": None}, "tls"),
    ],
)
def test_a_setting_that_is_unknown_or_out_of_bounds_is_named(
    tmp_path: Path, changes: dict[str, object], words: str
) -> None:
    assert f"  {words}: " in refusal(tmp_path, **changes)


def test_every_fault_is_named_at_once(tmp_path: Path) -> None:
    text = refusal(tmp_path, listen="x", polcy="x", limits={"queue": 0})
    assert all(f"  {field}: " in text for field in ("listen", "polcy", "limits.queue"))


@pytest.mark.parametrize(
    "pin",
    [{}, {"file": "a", "env": "B"}, {"file": "a", "credential": "b"}, {"file": "a", "credential": "b", "env": "C"}],
)
def test_a_pin_has_exactly_one_source(tmp_path: Path, pin: dict[str, str]) -> None:
    assert "exactly one of file, credential, env" in refusal(tmp_path, token=token(pin=pin))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "tls: "),
        (b"[]", "valid dictionary"),
        (b"a: [", "not valid YAML"),
        (b"\xff", "not valid YAML"),
        (b"a: \0", "not valid YAML"),
        (b"store: 2026-13-45", "not valid YAML"),
        (b"[" * 5000, "not valid YAML"),
    ],
)
def test_a_file_that_is_no_configuration_is_refused(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "hsmsigner.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigurationError, match=words):
        load_settings(path)


def test_a_missing_file_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="hsmsigner init"):
        load_settings(tmp_path / "gone.yaml")


def test_a_pin_is_read_from_its_file_without_its_line_end(tmp_path: Path) -> None:
    (tmp_path / "pin").write_bytes(b" 1234 \r\n")
    assert PinSource(file=tmp_path / "pin").read().reveal() == " 1234 "


def test_a_pin_is_read_from_a_systemd_credential(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "user-pin").write_text("1234\n", "utf-8")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert PinSource(credential="user-pin").read().reveal() == "1234"


def test_a_pin_is_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_PIN", "1234")
    assert PinSource(env="TEST_PIN").read().reveal() == "1234"


def test_a_pin_that_is_not_there_is_named_without_being_guessed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TEST_PIN", raising=False)
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    (tmp_path / "empty").write_text("\n", "utf-8")
    (tmp_path / "binary").write_bytes(b"\xff12345678")
    for source, words in (
        (PinSource(env="TEST_PIN"), "environment variable TEST_PIN is empty"),
        (PinSource(credential="user-pin"), "systemd credential user-pin cannot be read"),
        (PinSource(file=tmp_path / "gone"), "cannot be read"),
        (PinSource(file=tmp_path / "empty"), "is empty"),
        (PinSource(file=tmp_path / "binary"), "cannot be read"),
    ):
        with pytest.raises(ConfigurationError, match=words) as caught:
            source.read()
        assert "12345678" not in str(caught.value)


def test_a_secret_shows_itself_only_when_revealed() -> None:
    secret = Secret("12345678")
    shown = [
        repr(secret),
        str(secret),
        f"{secret}",
        f"{secret!r:>40}",
        "{}".format(secret),  # noqa: UP032 - one of the ways a secret may be printed
        json.dumps([secret], default=str),
    ]
    assert not [text for text in shown if "12345678" in text]
    assert not hasattr(secret, "__dict__")
    assert secret.reveal() == "12345678"


def test_settings_cannot_be_changed_once_read(tmp_path: Path) -> None:
    with pytest.raises(ValidationError):
        load(tmp_path).reflection = True  # type: ignore[misc]  # that is the point


def test_the_defaults_are_the_careful_ones(tmp_path: Path) -> None:
    settings = load(tmp_path)
    assert settings.listen == "127.0.0.1:8443"
    assert settings.reflection is False
    assert settings.limits.message_bytes == 2**20
    assert settings.limits.request_retention_s == 86_400
    assert settings.token.protection_level == "SOFTWARE_TOKEN"
    assert settings.state_dir == tmp_path
