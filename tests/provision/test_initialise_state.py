from __future__ import annotations

import os
import re
import stat
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from hsmsigner.client import Profile
from hsmsigner.config import load_settings
from hsmsigner.domain.policy import Right
from hsmsigner.domain.policy_document import parse_policy
from hsmsigner.errors import ConfigurationError
from hsmsigner.provision import DEV_CLIENTS, initialise_state

NOW = datetime.now(UTC)
REFERENCE = Path(__file__).parents[2] / "config"


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("provision") / "deep" / "appliance"
    initialise_state(folder, now=NOW, listen="127.0.0.1:18443")
    return folder


def test_settings_name_files_that_are_there(state: Path) -> None:
    settings = load_settings(state / "hsmsigner.yaml")

    assert settings.listen == "127.0.0.1:18443"
    for path in (
        settings.tls.certificate,
        settings.tls.private_key,
        settings.tls.client_ca,
        settings.policy,
        settings.token.module,
        Path(settings.token.environment["SOFTHSM2_CONF"]),
    ):
        assert path.is_file(), path
    assert settings.token.pin.read().reveal() != (state / "token" / "so.pin").read_text().strip()


def test_every_appliance_has_a_log_of_its_own_name(state: Path, tmp_path: Path) -> None:
    initialise_state(tmp_path / "other", now=NOW)
    origins = [load_settings(folder / "hsmsigner.yaml").audit.origin for folder in (state, tmp_path / "other")]

    assert origins[0] != origins[1]
    assert all(re.fullmatch(r"dev\.hsmsigner/[0-9a-f]{8}", origin) for origin in origins)


def test_token_is_found_where_the_folder_now_is(state: Path) -> None:
    listed = subprocess.run(
        ["softhsm2-util", "--show-slots"],
        env={**os.environ, "SOFTHSM2_CONF": str(state / "token" / "softhsm2.conf")},
        check=True,
        capture_output=True,
        text=True,
    )

    assert listed.stdout.count("hsmsigner-dev") == 1


def test_every_client_has_a_profile_that_loads(state: Path) -> None:
    for client in DEV_CLIENTS:
        assert Profile.load(state / "profiles" / f"{client.name}.yaml").server == "127.0.0.1:18443"


def test_nobody_else_can_read_anything(state: Path) -> None:
    for path in (state, *state.rglob("*")):
        assert not stat.S_IMODE(path.stat().st_mode) & 0o077, path


def test_policy_keeps_making_keys_and_signing_apart(state: Path) -> None:
    policy = parse_policy((state / "policy.yaml").read_bytes(), revision=1)
    principals = {client.name: client.principal for client in DEV_CLIENTS}

    def rights(name: str) -> frozenset[Right]:
        return policy.entitlement(principals[name], "keys/settlement-eu").rights

    assert rights("engine") == {Right.SIGN, Right.GET_PUBLIC_KEY}
    assert Right.CREATE_KEY in rights("operator")
    assert Right.SIGN not in rights("operator")
    assert rights("auditor") == {Right.READ_AUDIT, Right.GET_PUBLIC_KEY}
    assert rights("stranger") == frozenset()


def test_nothing_is_left_beside_the_folder(state: Path) -> None:
    assert [path.name for path in state.parent.iterdir()] == ["appliance"]


def test_empty_folder_is_taken(tmp_path: Path) -> None:
    initialise_state(tmp_path / "empty", now=NOW)
    (tmp_path / "empty2").mkdir()
    initialise_state(tmp_path / "empty2", now=NOW)

    assert (tmp_path / "empty2" / "hsmsigner.yaml").is_file()


def test_appliance_is_never_overwritten(state: Path) -> None:
    before = {path: path.read_bytes() for path in state.rglob("*") if path.is_file()}

    with pytest.raises(ConfigurationError, match=r"already holds an appliance.*hsmsigner serve"):
        initialise_state(state, now=NOW)

    assert {path: path.read_bytes() for path in state.rglob("*") if path.is_file()} == before


def test_folder_with_something_in_it_is_refused(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("data")

    with pytest.raises(ConfigurationError, match="not empty"):
        initialise_state(tmp_path, now=NOW)

    assert [path.name for path in tmp_path.iterdir()] == ["precious"]


def test_file_in_the_way_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("data")

    with pytest.raises(ConfigurationError, match="is a file"):
        initialise_state(tmp_path / "file", now=NOW)


@pytest.mark.parametrize(
    "listen", ["", "8443", "localhost", "localhost:", "localhost:0", "localhost:65536", "a b:1", "x:-1"]
)
def test_wrong_address_is_refused_and_nothing_is_left(tmp_path: Path, listen: str) -> None:
    with pytest.raises(ConfigurationError):
        initialise_state(tmp_path / "appliance", now=NOW, listen=listen)

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("label", ["", "x" * 33])
def test_token_that_cannot_be_made_leaves_nothing(tmp_path: Path, label: str) -> None:
    with pytest.raises(ConfigurationError):
        initialise_state(tmp_path / "appliance", now=NOW, token_label=label)

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("label", ['say "hi"', "$listen", "back\\slash", "# no comment", "Schlüssel"])
def test_strange_label_survives_the_settings_file(tmp_path: Path, label: str) -> None:
    initialise_state(tmp_path / "appliance", now=NOW, token_label=label)

    assert load_settings(tmp_path / "appliance" / "hsmsigner.yaml").token.label == label


def test_clients_of_a_server_on_all_addresses_get_a_name_it_has(tmp_path: Path) -> None:
    initialise_state(tmp_path / "appliance", now=NOW, listen="0.0.0.0:8443", server_names=["signer.example"])

    assert Profile.load(tmp_path / "appliance" / "profiles" / "engine.yaml").server == "signer.example:8443"


def test_clients_get_the_address_that_is_given(tmp_path: Path) -> None:
    initialise_state(tmp_path / "appliance", now=NOW, listen="0.0.0.0:8443", address_for_clients="127.0.0.1:18443")

    assert Profile.load(tmp_path / "appliance" / "profiles" / "engine.yaml").server == "127.0.0.1:18443"


def test_pin_of_a_file_is_the_tokens_and_is_not_copied(tmp_path: Path) -> None:
    pin_file = tmp_path / "pin"
    pin_file.write_text("a pin: with marks\n")

    initialise_state(tmp_path / "appliance", now=NOW, pin_file=pin_file)

    token = load_settings(tmp_path / "appliance" / "hsmsigner.yaml").token
    assert token.pin.file == pin_file
    assert not (tmp_path / "appliance" / "token" / "user.pin").exists()
    accepted = subprocess.run(
        ["pkcs11-tool", "--module", token.module, "--login", "--pin", "a pin: with marks", "--list-objects"],
        env={**os.environ, **token.environment},
        check=False,
        capture_output=True,
    )
    assert accepted.returncode == 0, accepted.stderr


def test_pin_file_that_is_not_there_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read"):
        initialise_state(tmp_path / "appliance", now=NOW, pin_file=tmp_path / "missing")

    assert list(tmp_path.iterdir()) == []


def test_reference_settings_are_valid_and_name_every_field() -> None:
    settings = load_settings(REFERENCE / "hsmsigner.yaml")
    written = yaml.safe_load((REFERENCE / "hsmsigner.yaml").read_text("utf-8"))

    assert set(written) == set(type(settings).model_fields)
    for section in ("tls", "token", "limits", "log", "audit"):
        assert set(written[section]) == set(type(getattr(settings, section)).model_fields), section


def test_reference_settings_show_the_defaults() -> None:
    settings = load_settings(REFERENCE / "hsmsigner.yaml")

    ours = {"origin", "witnesses", "push"}
    for section in (settings.limits, settings.log, settings.audit):
        assert section.model_dump(exclude=ours) == type(section)().model_dump(exclude=ours)


def test_reference_policy_is_valid_and_names_every_right() -> None:
    policy = parse_policy((REFERENCE / "policy.yaml").read_bytes(), revision=1)

    assert frozenset().union(*(grant.rights for grant in policy.grants)) == frozenset(Right)


@pytest.mark.parametrize("pin", ["123", "1" * 256])
def test_pin_that_softhsm_cannot_take_is_refused_in_words_and_nothing_is_left(tmp_path: Path, pin: str) -> None:
    (tmp_path / "pin").write_text(pin)

    with pytest.raises(ConfigurationError, match="PIN must have 4 to 255 bytes") as caught:
        initialise_state(tmp_path / "appliance", now=NOW, pin_file=tmp_path / "pin")

    assert pin not in str(caught.value)
    assert [entry.name for entry in tmp_path.iterdir()] == ["pin"]
