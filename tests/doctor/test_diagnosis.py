from __future__ import annotations

import json
import os
import shutil
import socket
import sqlite3
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from hsmsigner.config import load_settings
from hsmsigner.doctor import Finding, Level, diagnose
from hsmsigner.doctor.store import room_for_records
from hsmsigner.doctor.token_probe import findings_of
from hsmsigner.domain.algorithm import ALGORITHMS
from hsmsigner.state_lock import take_lock


def now() -> datetime:
    return datetime.now(UTC)


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text("utf-8")
    assert old in text
    path.write_text(text.replace(old, new), "utf-8")


def examine(state: Path, when: datetime | None = None, *, with_token: bool = False) -> list[Finding]:
    return list(diagnose(state / "hsmsigner.yaml", when or now(), with_token=with_token))


def only_fault(findings: list[Finding]) -> Finding:
    faults = [finding for finding in findings if finding.level is Level.FAULT]
    assert len(faults) == 1, faults
    assert faults[0].way_out
    return faults[0]


def test_fresh_appliance_has_nothing_to_complain_of(state: Path) -> None:
    findings = examine(state, with_token=True)

    assert {finding.level for finding in findings} == {Level.OK}, findings
    assert {"configuration", "policy", "tls.certificate", "store", "port", "token", "mechanisms"} <= {
        finding.check for finding in findings
    }


def test_invalid_configuration_names_the_field(state: Path) -> None:
    edit(state / "hsmsigner.yaml", "listen:", "lisden:")

    fault = only_fault(examine(state))

    assert fault.check == "configuration"
    assert "lisden" in fault.message


def test_missing_configuration_says_how_to_make_one(tmp_path: Path) -> None:
    assert "hsmsigner init" in only_fault(examine(tmp_path)).message


def test_invalid_policy_names_line_and_field(state: Path) -> None:
    edit(state / "policy.yaml", "per: 1d", "per: 1 day")

    fault = only_fault(examine(state))

    assert fault.check == "policy"
    assert "keys[0].quotas[1].per" in fault.message


def test_missing_module_is_named(state: Path) -> None:
    edit(state / "hsmsigner.yaml", "libsofthsm2.so", "libsofthsm3.so")

    fault = only_fault(examine(state, with_token=True))

    assert fault.check == "token"
    assert "libsofthsm3.so" in fault.message


def test_unknown_token_label_lists_those_there_are(state: Path) -> None:
    edit(state / "hsmsigner.yaml", 'label: "hsmsigner-dev"', 'label: "other"')

    fault = only_fault(examine(state, with_token=True))

    assert "'other'" in fault.message
    assert "'hsmsigner-dev'" in fault.message


def test_two_tokens_with_the_label_are_told_apart_by_serial(state: Path) -> None:
    subprocess.run(
        [
            "softhsm2-util",
            "--init-token",
            "--free",
            "--label",
            "hsmsigner-dev",
            "--pin",
            "12345678",
            "--so-pin",
            "12345678",
        ],
        env={**os.environ, "SOFTHSM2_CONF": str(state / "token" / "softhsm2.conf")},
        check=True,
        capture_output=True,
    )

    fault = only_fault(examine(state, with_token=True))

    assert "2 tokens carry the label" in fault.message
    assert "token.serial" in fault.message


def test_wrong_pin_is_tried_once_and_said_so(state: Path) -> None:
    (state / "token" / "user.pin").write_text("00000000\n")

    fault = only_fault(examine(state, with_token=True))

    assert "PIN" in fault.message
    assert "00000000" not in fault.message
    assert "one try" in fault.way_out


@pytest.mark.parametrize("content", [None, ""])
def test_missing_or_empty_pin_file_is_named(state: Path, content: str | None) -> None:
    path = state / "token" / "user.pin"
    path.unlink()
    if content is not None:
        path.write_text(content)
        path.chmod(0o600)

    assert "user.pin" in only_fault(examine(state, with_token=True)).message


def test_missing_mechanisms_are_named() -> None:
    report: dict[str, object] = {"label": "a", "serial": "1", "module": "m"}

    some = list(findings_of({**report, "algorithms": [name for name in ALGORITHMS if name != "ED448"]}))
    none = list(findings_of({**report, "algorithms": []}))

    assert some[1].level is Level.WARNING
    assert "ED448" in some[1].message
    assert none[1].level is Level.FAULT


def test_module_that_crashes_costs_the_doctor_nothing(state: Path, tmp_path: Path) -> None:
    source, module = tmp_path / "crash.c", tmp_path / "libcrash.so"
    source.write_text("__attribute__((constructor)) static void crash(void) { __builtin_trap(); }")
    if shutil.which("cc") is None:
        pytest.skip("needs a C compiler")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", str(module), str(source)], check=True)
    edit(state / "hsmsigner.yaml", "/usr/lib/softhsm/libsofthsm2.so", str(module))

    assert "SIGILL" in only_fault(examine(state, with_token=True)).message


def test_taken_port_is_found(state: Path, free_port: int) -> None:
    with socket.create_server(("127.0.0.1", free_port)):
        fault = only_fault(examine(state))

    assert fault.check == "port"
    assert "taken" in fault.message


def test_address_of_another_machine_is_found(state: Path, free_port: int) -> None:
    edit(state / "hsmsigner.yaml", f"127.0.0.1:{free_port}", f"192.0.2.1:{free_port}")

    assert "no address of this machine" in only_fault(examine(state)).message


def test_expired_certificate_is_found(state: Path) -> None:
    fault = only_fault(examine(state, now() + timedelta(days=400)))

    assert fault.check == "tls.certificate"
    assert "expired" in fault.message


def test_certificate_about_to_expire_is_a_warning(state: Path) -> None:
    findings = examine(state, now() + timedelta(days=350))

    assert any(finding.level is Level.WARNING and "expires in 1" in finding.message for finding in findings)


def test_certificate_not_yet_valid_is_found(state: Path) -> None:
    faults = [finding for finding in examine(state, now() - timedelta(days=1)) if finding.level is Level.FAULT]

    assert [fault.check for fault in faults] == ["tls.certificate", "tls.client_ca"]
    assert all("not valid before" in fault.message for fault in faults)


def test_key_of_another_certificate_is_found(state: Path) -> None:
    shutil.copy(state / "tls" / "engine-key.pem", state / "tls" / "server-key.pem")

    assert "is not the key of the certificate" in only_fault(examine(state)).message


@pytest.mark.parametrize("name", ["server.pem", "server-key.pem", "ca.pem"])
def test_missing_or_garbled_tls_file_is_named(state: Path, name: str) -> None:
    path = state / "tls" / name

    path.write_text("garbage")
    assert str(path) in only_fault(examine(state)).message
    path.unlink()
    assert str(path) in only_fault(examine(state)).message


def test_private_key_that_others_can_read_is_a_warning(state: Path) -> None:
    (state / "tls" / "server-key.pem").chmod(0o644)

    assert any(finding.level is Level.WARNING and "chmod 600" in finding.way_out for finding in examine(state))


def test_garbled_revocation_list_is_found(state: Path) -> None:
    edit(state / "hsmsigner.yaml", "client_ca: tls/ca.pem", "client_ca: tls/ca.pem\n  revoked: revoked.txt")
    (state / "revoked.txt").write_text("# comment\n\n" + "ab" * 32 + "\nnot a fingerprint\n")

    assert "entry 2" in only_fault(examine(state)).message


def test_store_that_cannot_be_written_is_found(state: Path) -> None:
    # Root may write everywhere but where there are no files at all.
    edit(state / "hsmsigner.yaml", "listen:", "state_dir: /proc\nlisten:")

    faults = [finding for finding in examine(state) if finding.level is Level.FAULT]

    assert any("cannot be written" in fault.message for fault in faults)


@pytest.mark.parametrize(
    ("free", "level"), [(2**20, Level.FAULT), (500 * 2**20, Level.WARNING), (50 * 2**30, Level.OK)]
)
def test_disk_that_fills_up_is_told_in_time(free: int, level: Level) -> None:
    assert room_for_records(Path("/somewhere"), free).level is level


def write_record(state: Path, record: bytes) -> None:
    with sqlite3.connect(state / "store.sqlite3") as connection:
        connection.execute("CREATE TABLE audit_records (sequence INTEGER PRIMARY KEY, record BLOB NOT NULL)")
        connection.execute("INSERT INTO audit_records VALUES (7, ?)", (record,))
    connection.close()


@pytest.mark.parametrize(("offset", "is_faulty"), [(-60, False), (0, False), (7200, True)])
def test_clock_behind_the_last_record_is_found(state: Path, offset: int, is_faulty: bool) -> None:  # noqa: FBT001 - a table
    time = (now() + timedelta(seconds=offset)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    write_record(state, json.dumps({"sequence": 7, "time": time}).encode())

    findings = examine(state)

    clock = next(finding for finding in findings if finding.check == "clock")
    assert (clock.level is Level.FAULT) == is_faulty
    assert ("behind the newest record" in clock.message) == is_faulty


@pytest.mark.parametrize("record", [b"garbage", b"[]", b"{}", b'{"time": 7}'])
def test_newest_record_that_cannot_be_read_is_found(state: Path, record: bytes) -> None:
    write_record(state, record)

    assert "newest record" in only_fault(examine(state)).message


def test_store_that_is_no_database_is_found(state: Path) -> None:
    (state / "store.sqlite3").write_bytes(b"not a database, and longer than a header of one hundred bytes" * 9)

    assert "cannot be read as a store" in only_fault(examine(state)).message


def test_token_is_left_alone_while_somebody_holds_the_folder(state: Path) -> None:
    (state / "token" / "user.pin").write_text("00000000\n")
    settings = load_settings(state / "hsmsigner.yaml")
    settings.run_dir.mkdir(exist_ok=True)
    lock = take_lock(settings)

    findings = examine(state, with_token=True)

    os.close(lock)
    assert any(f"as process {os.getpid()}" in finding.message for finding in findings)
    # A probe would have found the wrong PIN; the holder, which is no appliance, answers nothing.
    assert not any("refused the login" in finding.message for finding in findings)
    assert any("does not answer for the token" in finding.message for finding in findings)


def test_doctor_lets_go_of_the_folder(state: Path) -> None:
    examine(state, with_token=True)

    os.close(take_lock(load_settings(state / "hsmsigner.yaml")))
