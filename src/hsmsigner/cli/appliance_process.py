"""Starts `hsmsigner serve` as a child, and waits until it can sign; for the demo and for `make run`."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from hsmsigner.client import SignerClient, SigningClientError
from hsmsigner.errors import ConfigurationError

START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 40.0


class ApplianceProcess:
    """One running appliance; a context manager that stops it whatever happens."""

    def __init__(self, state: Path, *, log: IO[bytes] | None = None) -> None:
        self._state = state
        self.process = subprocess.Popen(  # noqa: S603 - this very interpreter and package
            [sys.executable, "-m", "hsmsigner", "serve", "--state", str(state)], stderr=log, stdin=subprocess.DEVNULL
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def wait_until_ready(self) -> None:
        """Return once the signing service says that it can sign.

        Raises:
            ConfigurationError: it ended, or was not ready in time.
        """
        deadline = time.monotonic() + START_TIMEOUT_S
        with SignerClient.from_profile(self._state / "profiles" / "operator.yaml") as client:
            while time.monotonic() < deadline:
                if (code := self.process.poll()) is not None:
                    raise ConfigurationError(f"the appliance ended at its start with exit code {code}")
                try:
                    if client.health("hsmsigner.v1.SigningService", timeout_s=1.0):
                        return
                except SigningClientError:
                    # Nobody listens yet; how long that may take is what the deadline says.
                    pass
                time.sleep(0.1)
        raise ConfigurationError(f"the appliance was not ready within {START_TIMEOUT_S:.0f} s")

    def stop(self) -> int:
        """Ask it to finish and wait for it; kill it when it does not. Returns its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()
