"""The command line against a running appliance: what a person would type, and what the exit codes are."""

from __future__ import annotations

import base64
import json
import os
import shlex
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from typer.testing import CliRunner

from hsmsigner.cli.appliance_process import ApplianceProcess
from hsmsigner.cli.main import build_app
from hsmsigner.cli.output import ExitCode
from hsmsigner.provision import initialise_state
from tests.e2e.appliance import free_port

ROOT = Path(__file__).parents[2]
PAYMENT = ROOT / "demo" / "pacs009.xml"


@dataclass(frozen=True, slots=True)
class CommandLine:
    """`hsmsigner` as one of the clients of an appliance."""

    state: Path

    def run(self, client: str, *words: str | Path, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [sys.executable, "-m", "hsmsigner", *map(str, words)],
            env={**os.environ, "HSMSIGNER_PROFILE": self._profile(client)},
            input=stdin,
            capture_output=True,
            check=False,
            timeout=60,
        )

    def answer(self, client: str, *words: str | Path, stdin: bytes = b"") -> Any:
        """What the command prints, in this process: half a second is saved each time."""
        app, env = build_app(str(words[0])), {"HSMSIGNER_PROFILE": self._profile(client)}
        done = CliRunner().invoke(app, [*map(str, words), "--json"], env=env, input=stdin)
        assert done.exit_code == ExitCode.DONE, (done.output, done.exception)
        return json.loads(done.stdout)

    def _profile(self, client: str) -> str:
        return str(self.state / "profiles" / f"{client}.yaml")

    def refusal(self, client: str, *words: str | Path) -> dict[str, Any]:
        done = self.run(client, *words, "--json")
        assert done.returncode == ExitCode.REFUSED, done
        error: dict[str, Any] = json.loads(done.stderr)["error"]
        return error


def make_state(folder: Path) -> Path:
    initialise_state(folder / "appliance", now=datetime.now(UTC), listen=f"127.0.0.1:{free_port()}")
    policy = folder / "appliance" / "policy.yaml"
    policy.write_text(policy.read_text("utf-8").replace("count: 5", "count: 5000"), "utf-8")
    return folder / "appliance"


@pytest.fixture(scope="module")
def command_line(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CommandLine]:
    state = make_state(tmp_path_factory.mktemp("appliance"))
    with (state.parent / "log").open("wb") as log, ApplianceProcess(state, log=log) as appliance:
        appliance.wait_until_ready()
        line = CommandLine(state)
        line.answer("operator", "keys", "create", "settlement-eu")
        yield line
        assert appliance.stop() == 0


def openssl_accepts(public_key: Path, signature: Path, message: Path) -> bool:
    command = ["openssl", "dgst", "-sha256", "-verify", str(public_key), "-signature", str(signature), str(message)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def test_openssl_accepts_what_sign_wrote(command_line: CommandLine, tmp_path: Path) -> None:
    signature, public_key = tmp_path / "signature", tmp_path / "key.pem"

    command_line.answer("engine", "sign", PAYMENT, "--key", "keys/settlement-eu", "--format", "DER", "--out", signature)
    command_line.answer("engine", "keys", "public-key", "settlement-eu", "--out", public_key)

    assert openssl_accepts(public_key, signature, PAYMENT)


def test_standard_input_is_signed_byte_for_byte(command_line: CommandLine, tmp_path: Path) -> None:
    message = b"\x00\xff\r\n"
    (tmp_path / "message").write_bytes(message)

    answer = command_line.answer("engine", "sign", "-", "--key", "keys/settlement-eu", "--format", "der", stdin=message)

    (tmp_path / "signature").write_bytes(base64.b64decode(answer["signature"]))
    (tmp_path / "key.pem").write_text(command_line.answer("engine", "keys", "public-key", "settlement-eu")["pem"])
    assert openssl_accepts(tmp_path / "key.pem", tmp_path / "signature", tmp_path / "message")


def test_same_request_id_gives_the_same_signature(command_line: CommandLine) -> None:
    words = ("sign", PAYMENT, "--key", "keys/settlement-eu", "--request-id", str(uuid4()))

    first, second = command_line.answer("engine", *words), command_line.answer("engine", *words)

    assert first == second


def test_same_request_id_for_other_bytes_is_refused(command_line: CommandLine, tmp_path: Path) -> None:
    request_id = str(uuid4())
    (tmp_path / "other").write_text("other")
    command_line.answer("engine", "sign", PAYMENT, "--key", "keys/settlement-eu", "--request-id", request_id)

    error = command_line.refusal(
        "engine", "sign", tmp_path / "other", "--key", "keys/settlement-eu", "--request-id", request_id
    )

    assert error["reason"] == "REQUEST_ID_REUSED"


def test_validate_only_signs_and_records_nothing(command_line: CommandLine) -> None:
    # Not the number of all records: refusals that were counted so far may be written at any moment.
    signatures = ("audit", "list", "--type", "sign.authorized", "--type", "sign.completed", "--type", "sign.failed")
    before = command_line.answer("auditor", *signatures)

    command_line.answer("engine", "sign", PAYMENT, "--key", "keys/settlement-eu", "--validate-only")

    assert command_line.answer("auditor", *signatures) == before


@pytest.mark.parametrize(
    ("client", "words", "reason"),
    [
        ("stranger", ["sign", PAYMENT, "--key", "keys/settlement-eu"], "KEY_NOT_FOUND_OR_FORBIDDEN"),
        ("engine", ["sign", PAYMENT, "--key", "keys/settlement-no"], "KEY_NOT_FOUND_OR_FORBIDDEN"),
        ("operator", ["sign", PAYMENT, "--key", "keys/settlement-eu"], "KEY_NOT_FOUND_OR_FORBIDDEN"),
        ("engine", ["sign", PAYMENT, "--key", "keys/settlement_eu"], "INVALID_FIELD"),
        ("engine", ["sign", "/dev/null", "--key", "keys/settlement-eu"], "INVALID_FIELD"),
        ("engine", ["sign", PAYMENT, "--key", "keys/settlement-eu", "--format", "ETHEREUM"], "FORMAT_NOT_SUPPORTED"),
        ("operator", ["keys", "create", "settlement-eu"], "KEY_EXISTS"),
        ("operator", ["keys", "create", "Settlement"], "INVALID_FIELD"),
        ("operator", ["keys", "create", "settlement-us", "--algorithm", "DSA"], "ALGORITHM_NOT_SUPPORTED"),
        ("engine", ["keys", "create", "settlement-us"], "KEY_NOT_FOUND_OR_FORBIDDEN"),
        ("engine", ["audit", "verify"], "FORBIDDEN"),
        ("engine", ["policy", "show"], "FORBIDDEN"),
    ],
)
def test_refusal_says_its_reason(command_line: CommandLine, client: str, words: list[str | Path], reason: str) -> None:
    error = command_line.refusal(client, *words)

    assert error["reason"] == reason
    assert error["message"]


def test_refused_signature_leaves_no_file(command_line: CommandLine, tmp_path: Path) -> None:
    out = tmp_path / "signature"

    command_line.refusal("stranger", "sign", PAYMENT, "--key", "keys/settlement-eu", "--out", out)

    assert not out.exists()


def test_keys_are_listed_to_those_who_have_a_right_to_them(command_line: CommandLine) -> None:
    names = [[key["name"] for key in command_line.answer(client, "keys", "list")] for client in ("engine", "stranger")]

    assert names == [["keys/settlement-eu"], []]


def test_key_is_shown_with_its_versions_and_what_protects_it(command_line: CommandLine) -> None:
    key = command_line.answer("engine", "keys", "show", "settlement-eu")

    assert [version["name"] for version in key["versions"]] == ["keys/settlement-eu/versions/1"]
    assert key["primary"]["state"] == "ACTIVE"
    assert all(key["primary"][promise] for promise in ("local", "always_sensitive", "never_extractable"))
    assert b"never extractable" in command_line.run("engine", "keys", "show", "settlement-eu").stdout


def test_policy_is_written_out_byte_for_byte_and_published_again(command_line: CommandLine, tmp_path: Path) -> None:
    out = tmp_path / "policy.yaml"

    shown = command_line.answer("operator", "policy", "show", "--out", out)
    validated = command_line.answer("operator", "policy", "validate", out)
    published = command_line.answer(
        "operator", "policy", "publish", out, "--comment", "again", "--expected-revision", str(shown["revision"])
    )

    assert out.read_bytes() == (command_line.state / "policy.yaml").read_bytes()
    assert validated["problems"] == []
    assert published["revision"] == shown["revision"] + 1
    assert command_line.refusal(
        "operator", "policy", "publish", out, "--comment", "again", "--expected-revision", str(shown["revision"])
    )["reason"] == "REVISION_CHANGED"  # fmt: skip


def test_faults_of_a_policy_are_named_with_their_lines(command_line: CommandLine, tmp_path: Path) -> None:
    document = tmp_path / "policy.yaml"
    text = (command_line.state / "policy.yaml").read_text("utf-8")
    document.write_text(text.replace("per: 1d", "per: 1 day").replace("get_public_key", "fly"), "utf-8")

    done = command_line.run("operator", "policy", "validate", document)

    assert done.returncode == ExitCode.REFUSED
    lines = done.stdout.decode().splitlines()
    assert len(lines) == 4
    assert all(line.startswith(f"{document}:") for line in lines)


def test_audit_list_begins_where_it_is_told(command_line: CommandLine) -> None:
    size = command_line.answer("auditor", "audit", "verify")["records"]

    first = command_line.answer("auditor", "audit", "list", "--start", "0", "--limit", "2")
    last = command_line.answer("auditor", "audit", "list", "--start", "-1")

    assert [record["sequence"] for record in first] == [0, 1]
    # Refusals that were counted so far may have been written meanwhile.
    assert [record["sequence"] >= size - 1 for record in last] == [True]


def test_doctor_asks_the_running_appliance(command_line: CommandLine) -> None:
    done = command_line.run("operator", "doctor", "--state", command_line.state, "--json")

    checks = {finding["check"]: finding for finding in json.loads(done.stdout)}
    assert done.returncode == ExitCode.DONE, done
    assert "runs on this folder" in checks["appliance"]["message"]
    assert "hsmsigner-dev" in checks["token"]["message"]


def test_second_appliance_on_the_folder_is_refused_and_told_who_is_there(command_line: CommandLine) -> None:
    done = command_line.run("operator", "serve", "--state", command_line.state)

    assert done.returncode == ExitCode.CONFIGURATION
    assert b"another appliance (process " in done.stderr


def test_program_in_the_readme_runs(command_line: CommandLine) -> None:
    program = (ROOT / "README.md").read_text("utf-8").split("```python\n")[1].split("```")[0]
    folder = command_line.state.parent
    (folder / PAYMENT.name).write_bytes(PAYMENT.read_bytes())

    done = subprocess.run([sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("keys/settlement-eu/versions/1 30")


def test_health_is_told_to_any_certificate_and_per_service(command_line: CommandLine) -> None:
    assert command_line.answer("stranger", "health") == {"service": "", "serving": True}

    unknown = command_line.run("stranger", "health", "--service", "hsmsigner.v1.NoSuchService")

    assert (unknown.returncode, unknown.stdout) == (ExitCode.REFUSED, b"not serving\n")


@pytest.mark.parametrize(("profile", "code"), [("stranger", 0), ("nobody", 1)])
def test_health_check_of_a_container_is_0_or_1(command_line: CommandLine, profile: str, code: int) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "hsmsigner.cli.health"],
        env={**os.environ, "HSMSIGNER_HEALTH_PROFILE": str(command_line.state / "profiles" / f"{profile}.yaml")},
        capture_output=True,
        check=False,
    )

    assert done.returncode == code, done


def test_wrong_pin_stops_the_start_with_its_exit_code(tmp_path: Path) -> None:
    state = make_state(tmp_path)
    (state / "token" / "user.pin").write_text("00000000\n")

    done = CommandLine(state).run("operator", "serve", "--state", state)

    assert done.returncode == ExitCode.CONFIGURATION
    assert b"PIN" in done.stderr
    assert b"00000000" not in done.stderr
    assert done.stderr.count(b"refused the login") == 1


@pytest.mark.parametrize("more", [[], ["--json"]])
def test_log_that_nobody_can_or_will_read_to_its_end_leaves_no_traceback(
    command_line: CommandLine, more: list[str]
) -> None:
    profile = command_line.state / "profiles" / "auditor.yaml"
    command = [sys.executable, "-m", "hsmsigner", "audit", "list", "--start", "0", "--profile", str(profile), *more]

    with Path("/dev/full").open("wb") as full:
        lost = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, check=False, timeout=60)
    shell = f"set -o pipefail; {shlex.join(command)} | head -c 1 >/dev/null"
    cut = subprocess.run(["bash", "-c", shell], stderr=subprocess.PIPE, check=False, timeout=60)

    assert lost.returncode == ExitCode.REFUSED
    assert b"cannot write the output" in lost.stderr
    # What fits into a pipe is written before its reader goes.
    assert cut.returncode in (ExitCode.DONE, 128 + signal.SIGPIPE)
    assert b"Traceback" not in lost.stderr + cut.stderr


def test_changed_record_is_found_by_audit_verify(tmp_path: Path) -> None:
    state = make_state(tmp_path)
    line = CommandLine(state)
    with (tmp_path / "log").open("wb") as log, ApplianceProcess(state, log=log) as appliance:
        appliance.wait_until_ready()
        line.answer("operator", "keys", "create", "settlement-eu")
        line.answer("engine", "sign", PAYMENT, "--key", "keys/settlement-eu")
        # While it runs: at its next start the appliance itself would find that one of its newest records was changed.
        with closing(sqlite3.connect(state / "store.sqlite3")) as connection, connection:
            sequence, record = connection.execute(
                "SELECT sequence, record FROM audit_records WHERE CAST(record AS TEXT) LIKE '%sign.authorized%'"
            ).fetchone()
            forged = bytes(record).replace(b"settlement/engine-1", b"settlement/engine-9")
            connection.execute("UPDATE audit_records SET record = ? WHERE sequence = ?", (forged, sequence))
        done = line.run("auditor", "audit", "verify", "--json")

    assert done.returncode == ExitCode.VERIFICATION, done
    error = json.loads(done.stderr)["error"]
    assert (error["fault"], error["sequence"]) == ("previous_hash", sequence + 1)


def test_demo_tells_its_story_in_one_screen() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "hsmsigner.cli.demo", str(PAYMENT)],
        capture_output=True,
        text=True,
        check=False,
        timeout=110,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert len(done.stdout.splitlines()) <= 24
