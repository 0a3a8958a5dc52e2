"""Output that cannot be written, or that nobody reads to its end, leaves no traceback."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from hsmsigner.cli.output import ExitCode
from hsmsigner.provision import initialise_state
from tests.e2e.appliance import free_port


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An appliance that does not run, on a port where nobody listens."""
    folder = tmp_path_factory.mktemp("cli") / "appliance"
    initialise_state(folder, now=datetime.now(UTC), listen=f"127.0.0.1:{free_port()}")
    return folder


WRITING = [
    ["--version"],
    ["--help"],
    ["doctor", "--state", "STATE", "--skip-token"],
    ["doctor", "--state", "STATE", "--skip-token", "--json"],
]


def written_to(output: int | None, words: list[str], state: Path) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "hsmsigner", *(str(state) if word == "STATE" else word for word in words)]
    if output is None:
        command = ["sh", "-c", 'exec "$0" "$@" >&-', *command]
    return subprocess.run(command, stdout=output, stderr=subprocess.PIPE, check=False, timeout=60)


@pytest.mark.parametrize("words", WRITING, ids=" ".join)
def test_output_that_cannot_be_written_is_a_failure_in_one_line(words: list[str], state: Path) -> None:
    with Path("/dev/full").open("wb") as full:
        done = written_to(full.fileno(), words, state)

    assert done.returncode == ExitCode.REFUSED
    (line,) = done.stderr.splitlines()
    assert b"cannot write the output: No space left on device" in line
    assert ("--json" in words) == line.startswith(b"{")


@pytest.mark.parametrize("words", WRITING, ids=" ".join)
def test_output_that_is_closed_is_a_failure_in_one_line(words: list[str], state: Path) -> None:
    done = written_to(None, words, state)

    assert done.returncode == ExitCode.REFUSED
    assert b"cannot write the output: Bad file descriptor" in done.stderr
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize("words", WRITING, ids=" ".join)
def test_reader_that_has_seen_enough_ends_the_command_in_silence(words: list[str], state: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = written_to(writer, words, state)
    finally:
        os.close(writer)

    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, b"")
