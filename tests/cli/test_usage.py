"""The command line without a server: help, wrong usage, what is on this side."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from hsmsigner.cli.main import build_app
from hsmsigner.cli.output import ExitCode
from hsmsigner.provision import initialise_state
from tests.e2e.appliance import free_port

COMMANDS = [
    ["init"],
    ["serve"],
    ["doctor"],
    ["health"],
    ["sign"],
    ["rotate"],
    ["bench"],
    *(["keys", name] for name in ("create", "list", "show", "public-key", "jwks", "history", "set-rotation", "adopt")),
    *(["keys", name] for name in ("activate", "suspend", "resume", "deactivate", "compromised")),
    *(["keys", name] for name in ("schedule-destroy", "restore", "destroy")),
    *(["keys", name] for name in ("csr", "attach-certificate", "continuity", "verify-continuity")),
    *(["policy", name] for name in ("show", "validate", "publish")),
    *(["audit", name] for name in ("list", "verify")),
]


def hsmsigner(*words: str | Path, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    environment = {name: value for name, value in os.environ.items() if name != "HSMSIGNER_PROFILE"}
    return subprocess.run(
        [sys.executable, "-m", "hsmsigner", *map(str, words)],
        input=stdin,
        env={**environment, "COLUMNS": "200"},
        capture_output=True,
        check=False,
        timeout=60,
    )


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An appliance that does not run, on a port where nobody listens."""
    folder = tmp_path_factory.mktemp("cli") / "appliance"
    initialise_state(folder, now=datetime.now(UTC), listen=f"127.0.0.1:{free_port()}")
    return folder


@pytest.fixture(scope="module")
def profile(state: Path) -> Path:
    return state / "profiles" / "engine.yaml"


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_has_help_with_an_example(command: Sequence[str]) -> None:
    group = typer.main.get_command(build_app())
    for word in command:
        group = group.commands[word]  # type: ignore[attr-defined] # a group, as the list above says

    assert group.help is not None
    assert f"Example: hsmsigner {' '.join(command)}" in group.help


def test_help_lists_the_exit_codes() -> None:
    done = hsmsigner("--help")

    assert done.returncode == ExitCode.DONE
    for code in ExitCode:
        assert f"{code.value}  ".encode() in done.stdout


def test_version_is_printed() -> None:
    assert hsmsigner("--version").stdout.startswith(b"hsmsigner 0.")


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["sign", "FILE"], "--key"),
        (["sign", "FILE", "--key", "keys/a"], "--profile"),
        (["sign", "FILE", "--key", "keys/a", "--profile", "/no/such/profile"], "does not exist"),
        (["sign", "/no/such/file", "--key", "keys/a", "--profile", "PROFILE"], "cannot read /no/such/file"),
        (["sign", "FILE", "--key", "keys/a", "--profile", "PROFILE", "--format", "PKCS7"], "RAW, DER"),
        (["sign", "FILE", "--key", "keys/a", "--profile", "PROFILE", "--request-id", "42"], "must be a UUID"),
        (["sign", "FILE", "--key", "keys/a", "--profile", "PROFILE", "--label", "a"], "NAME=VALUE"),
        (
            ["sign", "FILE", "--key", "keys/a", "--profile", "PROFILE", "--label", "a=1", "--label", "a=2"],
            "each name once",
        ),
        (["sign", "FILE", "--key", "keys/a", "--profile", "PROFILE", "--timeout", "0"], "greater than"),
        (["keys", "public-key", "keys/a", "--profile", "PROFILE", "--format", "der"], "--out"),
        (["keys", "public-key", "keys/a", "--profile", "PROFILE", "--format", "xml"], "pem, der, jwk"),
        (["rotate", "--profile", "PROFILE", "--reason", "a"], "one KEY, --due or --all"),
        (["rotate", "a", "--all", "--profile", "PROFILE", "--reason", "a"], "one KEY, --due or --all"),
        (["rotate", "a", "--profile", "PROFILE"], "must say why"),
        (["rotate", "a", "--profile", "PROFILE", "--reason", " "], "must say why"),
        (["rotate", "a", "--profile", "PROFILE", "--reason", "a", "--overlap", "1 hour"], "as in 15m or 30d"),
        (["rotate", "a", "--profile", "PROFILE", "--reason", "a", "--activate-at", "2026-12-01"], "with its zone"),
        (["rotate", "--due", "--profile", "PROFILE", "--etag", "v1"], "go with one KEY"),
        (["keys", "suspend", "a/versions/1", "--profile", "PROFILE"], "--reason"),
        (["keys", "suspend", "a/versions/1", "--profile", "PROFILE", "--reason", " "], "must say why"),
        (["keys", "destroy", "a/versions/1", "--profile", "PROFILE", "--reason", "a"], "say --yes"),
        (["keys", "set-rotation", "a", "--profile", "PROFILE", "--reason", "a"], "--never"),
        (["keys", "set-rotation", "a", "--profile", "PROFILE", "--reason", "a", "--never", "--every", "1d"], "--never"),
        (
            ["keys", "adopt", "a", "--profile", "PROFILE", "--reason", "a", "--algorithm", "ED25519", "--cka-id", "x"],
            "in hex",
        ),
        (
            ["keys", "attach-certificate", "a", "BINARY", "--profile", "PROFILE", "--reason", "a"],
            "not PEM",
        ),
        (["policy", "publish", "FILE", "--profile", "PROFILE"], "--comment"),
        (["policy", "publish", "FILE", "--profile", "PROFILE", "--comment", " "], "say why"),
        (["policy", "validate", "BINARY", "--profile", "PROFILE"], "not UTF-8"),
        (["audit", "list", "--profile", "PROFILE", "--limit", "0"], "greater than"),
        (["serve"], "--state"),
        (["serve", "--state", "FOLDER", "--config", "FILE"], "--state"),
        (["doctor"], "--state"),
        (["no-such-command"], "No such command"),
    ],
)
def test_wrong_usage_says_what_would_be_right(words: list[str], hint: str, profile: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("content")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    places = {
        "FILE": str(tmp_path / "file"),
        "BINARY": str(tmp_path / "binary"),
        "PROFILE": str(profile),
        "FOLDER": str(tmp_path),
    }

    done = CliRunner().invoke(
        build_app(), [places.get(word, word) for word in words], env={"HSMSIGNER_PROFILE": None, "COLUMNS": "200"}
    )

    assert done.exit_code == ExitCode.USAGE, done.output
    assert hint in done.stderr


def test_profile_may_come_from_the_environment(profile: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "hsmsigner", "keys", "list", "--json"],
        env={**os.environ, "HSMSIGNER_PROFILE": str(profile)},
        capture_output=True,
        check=False,
        timeout=60,
    )

    assert done.returncode == ExitCode.UNREACHABLE, done


def test_unusable_profile_is_a_configuration_fault(tmp_path: Path) -> None:
    (tmp_path / "profile.yaml").write_text("server: localhost:1\n")

    done = hsmsigner("keys", "list", "--profile", tmp_path / "profile.yaml")

    assert done.returncode == ExitCode.CONFIGURATION
    assert b"lacks ca, certificate, private_key" in done.stderr


@pytest.mark.parametrize(
    "words",
    [["sign", "-", "--key", "keys/a", "--timeout", "1"], ["keys", "list"], ["policy", "show"], ["audit", "verify"]],
)
def test_server_that_is_not_there_has_an_exit_code_of_its_own(words: list[str], profile: Path) -> None:
    done = hsmsigner(*words, "--profile", profile, stdin=b"message")

    assert done.returncode == ExitCode.UNREACHABLE, done
    assert b"no answer: " in done.stderr
    assert b"way out" in done.stderr


def test_error_is_json_where_json_was_asked_for(profile: Path) -> None:
    done = hsmsigner("keys", "list", "--profile", profile, "--json")

    assert done.stdout == b""
    assert json.loads(done.stderr)["error"]["reason"]


def test_init_makes_an_appliance_and_says_what_to_do_next(tmp_path: Path) -> None:
    done = hsmsigner("init", tmp_path / "appliance")

    assert done.returncode == ExitCode.DONE, done
    assert b"hsmsigner serve --state" in done.stdout
    assert (tmp_path / "appliance" / "hsmsigner.yaml").is_file()


def test_init_refuses_to_overwrite(state: Path) -> None:
    done = hsmsigner("init", state, "--json")

    assert done.returncode == ExitCode.CONFIGURATION
    assert "already holds an appliance" in json.loads(done.stderr)["error"]["message"]


def test_init_in_json_names_the_files(tmp_path: Path) -> None:
    answer = json.loads(hsmsigner("init", tmp_path / "appliance", "--json").stdout)

    assert Path(answer["config"]).is_file()
    assert all(Path(path).is_file() for path in answer["profiles"].values())


def test_serve_with_a_wrong_configuration_names_the_fault(tmp_path: Path) -> None:
    (tmp_path / "hsmsigner.yaml").write_text("listen: nowhere\n")

    done = hsmsigner("serve", "--state", tmp_path)

    assert done.returncode == ExitCode.CONFIGURATION
    assert b"listen" in done.stderr
    assert b"Traceback" not in done.stderr


def test_doctor_finds_nothing_wrong_with_a_fresh_appliance(state: Path) -> None:
    done = hsmsigner("doctor", "--state", state)

    assert done.returncode == ExitCode.DONE, done
    assert b"no faults" in done.stdout


def test_doctor_has_its_exit_code_and_json(tmp_path: Path) -> None:
    done = hsmsigner("doctor", "--state", tmp_path, "--json")

    assert done.returncode == ExitCode.CONFIGURATION
    findings = json.loads(done.stdout)
    assert [finding["level"] for finding in findings] == ["FAULT"]
    assert findings[0]["way_out"]


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["sign", "--json"], "FILE"),
        (["no-such-command", "--json"], "No such command 'no-such-command'"),
        (["keys", "list", "--json", "--no-such-option"], "No such option: --no-such-option"),
        (["keys", "list", "--json", "--profile", "/no/such/profile"], "does not exist"),
        (["rotate", "a", "--reason", " ", "--json", "--profile", "PROFILE"], "must say why"),
        (["doctor", "--json"], "--state"),
    ],
)
def test_wrong_usage_is_json_where_json_was_asked_for(words: list[str], hint: str, profile: Path) -> None:
    done = hsmsigner(*(str(profile) if word == "PROFILE" else word for word in words))

    assert done.returncode == ExitCode.USAGE
    assert done.stdout == b""
    assert hint in json.loads(done.stderr)["error"]["message"]
