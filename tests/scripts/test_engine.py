"""scripts/engine and scripts/base-image, with programs that stand in for docker's: what is started, stopped, named."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.appliance import until

ROOT = Path(__file__).parents[2]
PROGRAMS = {
    "docker": """
echo "$*" >>"$FAKE/asked"
case "$1 ${2:-}" in
  "compose version") ;;
  info*) [ -e "$FAKE/answers" ] ;;
  import*) cat >/dev/null; echo sha256:0 ;;
  tag*) ;;
  *) exit 1 ;;
esac""",
    "dockerd": """
[ ! -e "$FAKE/broken" ] || { echo "cannot start: it is broken"; exit 1; }
trap 'rm "$FAKE/answers"; exit' TERM
echo $$ >>"$FAKE/daemons"
touch "$FAKE/answers"
while :; do sleep 0.02; done""",
    "apt-get": "echo http://mirror.invalid/debian",
    "mmdebstrap": "echo half of it; exit 1",
    "iptables": "",
}

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="scripts/engine starts daemons as root alone")


@dataclass(frozen=True)
class Machine:
    """The programs' folder, and what they leave in it: `answers` while a daemon runs, a line in `daemons` for each."""

    folder: Path

    @property
    def started(self) -> Path:
        return self.folder / "memory" / "dockerd.started"

    @property
    def has_engine(self) -> bool:
        return (self.folder / "answers").exists()

    @property
    def daemons(self) -> list[int]:
        path = self.folder / "daemons"
        return [int(line) for line in path.read_text().split()] if path.exists() else []

    def start(self, script: str, *words: str) -> subprocess.Popen[str]:
        environment = {
            "PATH": f"{self.folder}:{os.environ['PATH']}",
            "FAKE": str(self.folder),
            "HSMSIGNER_ENGINE_MEMORY": str(self.folder / "memory"),
        }
        return subprocess.Popen(
            [ROOT / "scripts" / script, *words],
            env=os.environ | environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def engine(self, *words: str) -> tuple[int, str]:
        """Run scripts/engine to its end: exit code, and what it said."""
        process = self.start("engine", *words)
        _, said = process.communicate(timeout=60)
        return process.returncode, said

    def held_open(self, name: str) -> subprocess.Popen[str]:
        """`scripts/engine run` of a command that goes on until `let_go`; returns when the command has begun."""
        begun, over = self.folder / f"{name}.begun", self.folder / f"{name}.over"
        process = self.start("engine", "run", "sh", "-c", f"touch {begun}; until [ -e {over} ]; do sleep 0.02; done")
        until(begun.exists, "the command runs")
        return process

    def let_go(self, name: str, process: subprocess.Popen[str]) -> None:
        (self.folder / f"{name}.over").touch()
        process.communicate(timeout=60)


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    for name, body in PROGRAMS.items():
        program = tmp_path / name
        program.write_text(f"#!/usr/bin/env bash\n{body}\n")
        program.chmod(0o755)
    machine = Machine(tmp_path)
    yield machine
    for pid in machine.daemons:
        if Path(f"/proc/{pid}").exists():
            os.kill(pid, signal.SIGTERM)


@pytest.mark.parametrize("code", [0, 7])
def test_engine_runs_for_as_long_as_the_command_and_passes_on_its_exit_code(machine: Machine, code: int) -> None:
    done, said = machine.engine("run", "sh", "-c", f"[ -e {machine.folder}/answers ] && exit {code}")

    assert done == code
    assert "daemon started" in said
    assert "daemon stopped" in said
    assert not machine.has_engine
    assert not machine.started.exists()


def test_two_runs_at_once_share_a_daemon_and_the_last_one_stops_it(machine: Machine) -> None:
    first, second = machine.held_open("first"), machine.held_open("second")

    machine.let_go("first", first)
    assert machine.has_engine
    machine.let_go("second", second)

    assert not machine.has_engine
    assert len(machine.daemons) == 1


def test_engine_that_was_brought_up_outlives_a_run_and_goes_with_down(machine: Machine) -> None:
    machine.engine("up")
    machine.engine("run", "true")
    assert machine.has_engine

    assert machine.engine("down")[0] == 0

    assert not machine.has_engine
    assert machine.engine("down")[0] == 0


def test_engine_of_somebody_else_is_used_and_left_alone(machine: Machine) -> None:
    (machine.folder / "answers").touch()

    machine.engine("up")
    assert machine.engine("run", "true") == (0, "")
    machine.engine("down")

    assert machine.has_engine
    assert machine.daemons == []


def test_daemon_of_a_run_that_was_killed_is_stopped_by_the_next(machine: Machine) -> None:
    killed = machine.held_open("killed")
    os.killpg(killed.pid, signal.SIGKILL)
    killed.communicate()
    assert machine.has_engine

    machine.engine("run", "true")

    assert not machine.has_engine
    assert len(machine.daemons) == 1


@pytest.mark.parametrize("remembered", ["", "%d", "%d 1"], ids=["nothing", "half a line", "a process id used anew"])
def test_memory_that_names_no_daemon_of_ours_stops_nobody(machine: Machine, remembered: str) -> None:
    with subprocess.Popen(["sleep", "60"]) as stranger:
        machine.engine("up")
        os.kill(machine.daemons[0], signal.SIGTERM)
        until(lambda: not machine.has_engine, "the daemon is gone")
        machine.started.write_text(remembered % stranger.pid if remembered else "")

        assert machine.engine("down")[0] == 0

        assert stranger.poll() is None
        stranger.terminate()
    assert not machine.started.exists()


def test_daemon_that_does_not_start_is_reported_with_its_own_words(machine: Machine) -> None:
    (machine.folder / "broken").touch()

    code, said = machine.engine("run", "true")

    assert code == 1
    assert "it is broken" in said
    assert "the docker daemon did not start" in said
    assert not machine.started.exists()


def test_base_image_that_broke_off_gets_no_name(machine: Machine) -> None:
    process = machine.start("base-image", "--local")
    _, said = process.communicate(timeout=60)

    assert process.returncode == 1
    assert "broke off" in said
    asked = (machine.folder / "asked").read_text().splitlines()
    assert any(line.startswith("import") for line in asked)
    assert not any(line.startswith("tag") for line in asked)
