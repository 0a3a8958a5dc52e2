"""What the development container does before it serves: at the first start, at later ones, and beside another one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from hsmsigner.cli import container
from tests.e2e.appliance import until


@pytest.fixture(autouse=True)
def _nothing_is_served(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(container, "run_supervisor", lambda _settings: 0)


@pytest.fixture
def pin(tmp_path: Path) -> Path:
    for folder in ("volume", "clients"):
        (tmp_path / folder).mkdir()
    file = tmp_path / "pin"
    file.write_text("314159\n")
    return file


def start(pin: Path) -> int:
    folder = pin.parent
    return container.run(
        folder / "volume" / "appliance", folder / "clients", name="hsmsigner", published="127.0.0.1:8443", pin_file=pin
    )


def test_a_first_start_that_was_killed_leaves_nothing_once_another_one_is_through(pin: Path) -> None:
    volume = pin.parent / "volume"
    options = [f"--state={volume / 'appliance'}", f"--clients={pin.parent / 'clients'}", f"--pin-file={pin}"]
    with subprocess.Popen([sys.executable, "-m", "hsmsigner.cli.container", *options], start_new_session=True) as first:
        until(lambda: any(volume.iterdir()), "the first start has begun to write")
        os.killpg(first.pid, signal.SIGKILL)
    assert [entry.name for entry in volume.iterdir()] != ["appliance"]

    assert start(pin) == 0

    assert [entry.name for entry in volume.iterdir()] == ["appliance"]
    assert len(list((volume / "appliance" / "token" / "tokens").iterdir())) == 1


def test_two_first_starts_on_one_volume_make_one_appliance(pin: Path) -> None:
    with ThreadPoolExecutor(2) as starts:
        assert list(starts.map(start, [pin, pin])) == [0, 0]

    assert [entry.name for entry in (pin.parent / "volume").iterdir()] == ["appliance"]


def test_certificates_that_were_handed_out_are_not_written_again(pin: Path) -> None:
    def written() -> dict[Path, int]:
        return {path: path.stat().st_ino for path in (pin.parent / "clients").rglob("*") if path.is_file()}

    start(pin)
    before = written()
    # Of another appliance, as after its volume was made anew.
    changed = pin.parent / "clients" / "tls" / "ca.pem"
    changed.write_text("another")

    start(pin)

    after = written()
    assert {path for path in after if after[path] != before[path]} == {changed}
    assert changed.read_bytes() == (pin.parent / "volume" / "appliance" / "tls" / "ca.pem").read_bytes()
