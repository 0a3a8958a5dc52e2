"""How a worker starts, and with which words it does not."""

from __future__ import annotations

import _ctypes
import stat
from pathlib import Path

import pytest

from hsmsigner.config import Secret
from hsmsigner.errors import ConfigurationError
from hsmsigner.process import EXIT_CONFIGURATION
from hsmsigner.token.softhsm import create_softhsm_token
from tests.softhsm import LABEL, SO_PIN, USER_PIN, SoftHsm

SPY = Path("/usr/lib/x86_64-linux-gnu/pkcs11-spy.so")
SPIES = [SPY, *Path("/usr/lib").glob("*/pkcs11/pkcs11-spy.so")]


def failed_start(hsm: SoftHsm, environment: dict[str, str] | None = None) -> str:
    """Start a worker that must stop with 78; gives what it said."""
    with hsm.start_worker(is_ready=False, environment=environment) as worker:
        assert worker.wait() == EXIT_CONFIGURATION, worker.output()
        said = worker.output()
    assert "Traceback" not in said
    return said


def test_wrong_pin_stops_the_start_and_is_not_shown(hsm: SoftHsm) -> None:
    pin_file = Path(hsm.token["pin"]["file"])
    pin_file.write_text("99887766")

    said = failed_start(hsm)

    assert "not the token's user PIN" in said
    assert "99887766" not in said
    pin_file.write_text(USER_PIN)
    with hsm.start_worker() as worker:
        assert worker.stop() == 0


def test_wrong_pin_is_tried_exactly_once(hsm: SoftHsm, tmp_path: Path) -> None:
    spy = next((path for path in SPIES if path.exists()), None)
    if spy is None:
        pytest.skip("pkcs11-spy (package opensc-pkcs11) is not installed")
    Path(hsm.token["pin"]["file"]).write_text("99887766")
    log = tmp_path / "spy.log"
    hsm.token["environment"] |= {"PKCS11SPY": hsm.token["module"], "PKCS11SPY_OUTPUT": str(log)}
    hsm.token["module"] = str(spy)

    failed_start(hsm)

    calls = [line.split(": ")[-1] for line in log.read_text().splitlines() if ": C_" in line]
    assert calls.count("C_Login") == 1
    # The session of the failed login is not left open on the device.
    assert calls.count("C_OpenSession") == calls.count("C_CloseSession") == 1


def test_pin_from_an_environment_variable_works_and_an_empty_one_is_named(hsm: SoftHsm) -> None:
    hsm.token["pin"] = {"env": "TEST_TOKEN_PIN"}
    with hsm.start_worker(environment={"TEST_TOKEN_PIN": USER_PIN}) as worker:
        assert worker.stop() == 0
        assert USER_PIN not in worker.output()
    assert "TEST_TOKEN_PIN is empty" in failed_start(hsm)


def test_token_that_is_not_there_is_named_with_those_that_are(hsm: SoftHsm) -> None:
    hsm.token["label"] = "no-such-token"
    said = failed_start(hsm)
    assert "no token 'no-such-token'" in said
    assert repr(LABEL) in said


def test_two_tokens_with_one_label_need_a_serial(hsm: SoftHsm) -> None:
    create_softhsm_token(hsm.state / "token", LABEL, Secret(USER_PIN), Secret(SO_PIN))

    said = failed_start(hsm)
    assert "2 tokens carry the label" in said
    serials = said.partition("(serials ")[2].partition(")")[0].split(", ")
    assert len(serials) == 2

    for serial in serials:
        hsm.token["serial"] = serial
        with hsm.start_worker() as worker:
            assert hsm.ask(lambda client: client.status()).serial == serial
            worker.stop()
    hsm.token["serial"] = "0000"
    assert serials[0] in failed_start(hsm)


def test_module_that_cannot_be_loaded_is_named(hsm: SoftHsm, tmp_path: Path) -> None:
    hsm.token["module"] = str(tmp_path / "missing.so")
    assert "cannot be loaded" in failed_start(hsm)


def test_library_that_is_no_module_is_told_apart(hsm: SoftHsm) -> None:
    hsm.token["module"] = str(_ctypes.__file__)
    assert "is not a PKCS#11 module" in failed_start(hsm)


def test_module_that_refuses_its_own_configuration_is_told_apart(hsm: SoftHsm, tmp_path: Path) -> None:
    hsm.token["environment"] = {"SOFTHSM2_CONF": str(tmp_path / "missing.conf")}
    assert "refused to initialise" in failed_start(hsm)


def test_socket_and_its_folder_are_private_and_go_with_the_worker(hsm: SoftHsm) -> None:
    address = hsm.settings.token_socket
    address.parent.mkdir(mode=0o755)
    address.write_text("stale")
    with hsm.start_worker() as worker:
        assert stat.S_IMODE(address.parent.stat().st_mode) == 0o700
        assert stat.S_IMODE(address.stat().st_mode) == 0o600
        assert worker.stop() == 0
    assert not address.exists()


def test_memory_of_a_worker_is_closed_to_others_and_leaves_no_core(hsm: SoftHsm) -> None:
    with hsm.start_worker() as worker:
        process = Path(f"/proc/{worker.process.pid}")
        limits = (process / "limits").read_text()
        # The kernel gives the files of a process that is not dumpable to root.
        assert (process / "mem").stat().st_uid == 0
        assert next(line for line in limits.splitlines() if "core file size" in line).split()[4:6] == ["0", "0"]


def test_second_worker_on_one_token_does_not_start(hsm: SoftHsm) -> None:
    with hsm.start_worker(), hsm.start_worker(is_ready=False) as second:
        assert second.wait() == 75
        assert "still holds the token" in second.output()


def test_created_folder_is_private_and_a_long_label_is_refused(hsm: SoftHsm, tmp_path: Path) -> None:
    for path in (hsm.state / "token", hsm.state / "token" / "tokens"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
    with pytest.raises(ConfigurationError, match="1 to 32 bytes"):
        create_softhsm_token(tmp_path / "other", "x" * 33, Secret(USER_PIN), Secret(SO_PIN))
    assert list((hsm.state / "token" / "tokens").iterdir())
