"""A throw-away SoftHSM token and the worker process in front of it, for any test that needs a real one.

Each token lies in a folder of its own and is used by one process at a time: SoftHSM is not safe otherwise (facts 0.3).
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self, TypeVar

import yaml

from hsmsigner.config import Secret, Settings, load_settings
from hsmsigner.token.client import TokenClient
from hsmsigner.token.protocol import frame_limit
from hsmsigner.token.softhsm import create_softhsm_token, find_softhsm_module

USER_PIN = "48151623"
SO_PIN = "42108151"
LABEL = "test-token"
PATIENCE_S = 60.0

Answer = TypeVar("Answer")

RUN_WORKER = """
import sys
from pathlib import Path
from hsmsigner.config import load_settings
from hsmsigner.token.worker import run_token_worker
sys.exit(run_token_worker(load_settings(Path(sys.argv[1]))))
"""


def until(condition: Callable[[], bool], what: str, patience_s: float = PATIENCE_S) -> None:
    """Wait for a condition of the world outside; fail with its name when it does not come."""
    deadline = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < deadline, f"waited {patience_s:g} s in vain for: {what}"
        time.sleep(0.01)


@dataclass
class SoftHsm:
    """A state folder with a SoftHSM token, the settings that fit it, and at most one worker at a time."""

    state: Path
    token: dict[str, Any]
    limits: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def create(cls, state: Path, label: str = LABEL, **token: Any) -> Self:
        """Initialise one token under `state/token`; keywords go to the `token` section of the settings."""
        environment = create_softhsm_token(state / "token", label, Secret(USER_PIN), Secret(SO_PIN))
        pin_file = state / "token" / "user.pin"
        pin_file.write_text(USER_PIN)
        pin_file.chmod(0o600)
        section = {
            "label": label,
            "module": str(find_softhsm_module()),
            "pin": {"file": str(pin_file)},
            "environment": environment,
        }
        return cls(state, section | token)

    @property
    def settings(self) -> Settings:
        """The settings, read from the file as the program reads them."""
        return load_settings(self.write_settings())

    def write_settings(self) -> Path:
        """Write `hsmsigner.yaml`; what does not concern the token is made up."""
        path = self.state / "hsmsigner.yaml"
        tls = {name: f"tls/{name}.pem" for name in ("certificate", "private_key", "client_ca")}
        document = {"tls": tls, "policy": "policy.yaml", "token": self.token, "limits": self.limits}
        path.write_text(yaml.safe_dump(document), "utf-8")
        return path

    def start_worker(self, *, is_ready: bool = True, environment: dict[str, str] | None = None) -> Worker:
        """Start a worker process; wait until it answers connects, unless told that it will not get there."""
        process = subprocess.Popen(
            [sys.executable, "-c", RUN_WORKER, str(self.write_settings())],
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | (environment or {}),
        )
        worker = Worker(process)
        if is_ready:
            self.wait_for_worker(lambda: process.poll() is not None)
            if process.poll() is not None:
                raise AssertionError(f"the worker ended with {process.returncode}: {worker.output()}")
        return worker

    def wait_for_worker(self, is_over: Callable[[], bool] = lambda: False) -> None:
        """Wait until a worker takes connections, or until there is no hope."""
        address = str(self.settings.token_socket)
        until(lambda: _accepts(address) or is_over(), "the worker listens")

    def client(self, **keywords: Any) -> TokenClient:
        """A client of this token's worker, not started."""
        limits = self.settings.limits
        return TokenClient(
            self.settings.token_socket, **({"deadline_s": PATIENCE_S, "frame_limit": frame_limit(limits)} | keywords)
        )

    @asynccontextmanager
    async def connected(self, **keywords: Any) -> AsyncIterator[TokenClient]:
        """A client, connected, closed at the end."""
        client = self.client(**keywords)
        await client.start()
        try:
            async with asyncio.timeout(PATIENCE_S):
                await client.wait_connected()
            yield client
        finally:
            await client.close()

    def ask(self, use: Callable[[TokenClient], Coroutine[Any, Any, Answer]]) -> Answer:
        """Run a coroutine function with a connected client, in a loop of its own."""

        async def run() -> Answer:
            async with self.connected() as client:
                return await use(client)

        return asyncio.run(run())


class Worker:
    """A worker process; as a context manager it is killed at the end if it still runs."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self._output: str | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.output()

    def stop(self) -> int:
        """SIGTERM, and the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.wait()

    def wait(self) -> int:
        """The exit code, once it ends by itself."""
        return self.process.wait(PATIENCE_S)

    def output(self) -> str:
        """Everything it wrote to stderr; waits for its end."""
        if self._output is None:
            _, self._output = self.process.communicate(timeout=PATIENCE_S)
        return self._output


def _accepts(address: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(address)
        except OSError:
            return False
        return True
