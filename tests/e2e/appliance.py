"""A whole appliance in processes of its own, as `hsmsigner serve` runs it, and means to kill parts of it."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import yaml

from hsmsigner.client import SignerClient, SigningClientError
from hsmsigner.provision import initialise_state

# What is waited for takes seconds; a busy machine may take many times as long.
PATIENCE_S = 60.0
_LANES = 16
KEY = "keys/settlement-eu"

UNLIMITED_POLICY = """
version: 1
groups: {engines: ["spiffe://dev.hsmsigner/settlement/*"], ops: ["spiffe://dev.hsmsigner/ops/*"]}
grants:
  - {principals: [group:engines], keys: ["keys/settlement-*"], rights: [sign, get_public_key]}
  - {principals: [group:ops], keys: ["**"], rights: [%s]}
  - {principals: ["spiffe://dev.hsmsigner/audit/*"], keys: ["**"], rights: [read_audit]}
keys:
  - {match: keys/settlement-*, inputs: [message], quotas: %s}
"""
OPERATOR_RIGHTS = "create_key, rotate, manage_key, read_audit, publish_policy, get_public_key"


def until(condition: Callable[[], bool], what: str, patience_s: float = PATIENCE_S) -> None:
    """Wait for a condition of the world outside; fail with its name when it does not come."""
    deadline = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < deadline, f"waited {patience_s:g} s in vain for: {what}"
        time.sleep(0.02)


def free_port() -> int:
    """A port below those that the kernel gives to outgoing connections: one of them could take it before the server.

    Each worker of pytest-xdist has ports of its own, so none takes one that another has found free and not bound yet.
    """
    lane = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % _LANES
    while True:
        port = 10000 + lane + _LANES * random.SystemRandom().randrange(22000 // _LANES)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


@dataclass
class Appliance:
    """One state folder and, while started, the processes on it."""

    state: Path
    port: int = field(default_factory=free_port)
    environment: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    @property
    def database(self) -> Path:
        return self.state / "store.sqlite3"

    @property
    def log_file(self) -> Path:
        return self.state.with_suffix(".log")

    def initialise(self, quotas: str = "unlimited") -> None:
        initialise_state(self.state, listen=f"127.0.0.1:{self.port}", now=datetime.now(UTC))
        (self.state / "policy.yaml").write_text(UNLIMITED_POLICY % (OPERATOR_RIGHTS, quotas))

    def configure(self, **sections: object) -> None:
        """Change top-level settings; a dictionary is merged into its section."""
        path = self.state / "hsmsigner.yaml"
        settings = yaml.safe_load(path.read_text())
        for name, value in sections.items():
            settings[name] = settings.get(name, {}) | value if isinstance(value, dict) else value
        path.write_text(yaml.safe_dump(settings))

    def launch(self, arguments: Sequence[str] = ()) -> subprocess.Popen[bytes]:
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "hsmsigner", "serve", "--state", str(self.state), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=os.environ | self.environment,
            )
        return self.process

    def start(self) -> None:
        self.launch()
        self.wait_until_serving()

    def wait_until_serving(self) -> None:
        def serves() -> bool:
            assert self.process is not None
            assert self.process.poll() is None, self.log_file.read_text()[-4000:]
            return self.is_healthy()

        until(serves, "the appliance serves")

    def is_healthy(self, service: str = "hsmsigner.v1.SigningService") -> bool:
        try:
            with self.client("operator") as client:
                return client.health(service, timeout_s=2.0)
        except SigningClientError:
            return False

    def client(self, profile: str = "engine") -> SignerClient:
        return SignerClient.from_profile(self.state / "profiles" / f"{profile}.yaml")

    def create_key(self, key_id: str = "settlement-eu", algorithm: str = "ECDSA_P256_SHA256") -> None:
        with self.client("operator") as client:
            client.create_key(key_id, algorithm)

    def children(self, role: str) -> list[int]:
        """Process ids of a role (`frontend`, `token-worker`) whose supervisor is ours."""
        assert self.process is not None
        listing = subprocess.run(
            ["ps", "-o", "pid=,args=", "--ppid", str(self.process.pid)], capture_output=True, text=True, check=False
        )
        return [int(line.split()[0]) for line in listing.stdout.splitlines() if f" {role} " in f"{line} "]

    def kill(self, role: str, number: signal.Signals = signal.SIGKILL) -> None:
        """Signal a part; `supervisor` is the process that was launched."""
        assert self.process is not None
        for pid in [self.process.pid] if role == "supervisor" else self.children(role):
            os.kill(pid, number)

    def stop(self) -> int:
        """SIGTERM, and the exit code."""
        if self.process is None:
            return 0
        if self.process.poll() is None:
            self.process.terminate()
        try:
            return self.process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise


@contextmanager
def running_appliance(
    folder: Path, *, quotas: str = "unlimited", keys: Sequence[str] = ("settlement-eu",), **settings: object
) -> Iterator[Appliance]:
    appliance = Appliance(folder / "state")
    appliance.initialise(quotas)
    if settings:
        appliance.configure(**settings)
    try:
        appliance.start()
        for key_id in keys:
            appliance.create_key(key_id)
        yield appliance
    finally:
        appliance.stop()
