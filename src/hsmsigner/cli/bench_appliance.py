"""A throw-away appliance for `hsmsigner bench`, started as an operator would start it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from hsmsigner.client import SignerClient, SigningClientError
from hsmsigner.config import load_settings
from hsmsigner.errors import ConfigurationError
from hsmsigner.provision import initialise_state

KEY = "keys/bench"
_POLICY = """\
version: 1
grants:
  - {principals: ["spiffe://dev.hsmsigner/ops/operator"], keys: ["**"], rights: [create_key, get_public_key]}
  - {principals: ["spiffe://dev.hsmsigner/settlement/engine-1"], keys: [keys/bench], rights: [sign, get_public_key]}
keys:
  - {match: keys/bench, inputs: [message], quotas: unlimited}
"""
_START_TIMEOUT_S = 60.0
_STOP_TIMEOUT_S = 30.0
_POLL_S = 0.05
_LOG_LINES = 10


@dataclass(frozen=True, slots=True)
class RunningAppliance:
    """`profile` is that of a client who may sign with KEY; `pid` is the supervisor's."""

    profile: Path
    pid: int

    def frontend_rss_mib(self) -> float | None:
        """Resident memory of the frontend; None where there is no /proc."""
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                status = dict(line.split(":", 1) for line in (folder / "status").read_text().splitlines())
                arguments = (folder / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue  # it ended meanwhile, or is none of ours
            if int(status["PPid"]) == self.pid and b"frontend" in arguments and "VmRSS" in status:
                return int(status["VmRSS"].split()[0]) / 1024
        return None


@contextmanager
def running_appliance(directory: Path) -> Iterator[RunningAppliance]:
    """Make an appliance in `directory`, serve it, make its key; stop it at the end.

    Raises:
        ConfigurationError: it cannot be made or does not start; the end of its log is in the text.
    """
    initialise_state(directory, now=datetime.now(UTC), listen=f"127.0.0.1:{_free_port()}")
    (directory / "policy.yaml").write_text(_POLICY, "utf-8")
    log = directory / "serve.log"
    with log.open("wb") as output:
        server = subprocess.Popen(  # noqa: S603 - this program itself
            [sys.executable, "-m", "hsmsigner", "serve", "--state", str(directory)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        address = load_settings(directory / "hsmsigner.yaml").address_file
        _wait_for(address.exists, server, log)
        with SignerClient.from_profile(directory / "profiles" / "operator.yaml") as operator:
            _wait_for(lambda: _is_serving(operator), server, log)
            operator.create_key(KEY.removeprefix("keys/"), "ECDSA_P256_SHA256")
        yield RunningAppliance(directory / "profiles" / "engine.yaml", server.pid)
    finally:
        server.terminate()
        try:
            server.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def _wait_for(is_so: Callable[[], bool], server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _START_TIMEOUT_S
    while not is_so():
        if server.poll() is not None or time.monotonic() > deadline:
            tail = "\n".join(log.read_text("utf-8", errors="replace").splitlines()[-_LOG_LINES:])
            raise ConfigurationError(f"the appliance to be measured did not start; the end of its log:\n{tail}")
        time.sleep(_POLL_S)


def _is_serving(client: SignerClient) -> bool:
    try:
        return client.health()
    except SigningClientError:
        return False


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def disk_of(path: Path) -> str:
    """File system type of a folder, as in ext4; empty where the system does not say. On tmpfs nothing is durable."""
    best, kind = "", ""
    try:
        mounts = Path("/proc/mounts").read_text("utf-8")
    except OSError:
        return ""
    for line in mounts.splitlines():
        _, mount, this_kind, *_ = line.split(" ")
        is_under = path.resolve().is_relative_to(mount.encode().decode("unicode_escape"))
        if is_under and len(mount) >= len(best):
            best, kind = mount, this_kind
    return kind


def processors() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
