"""A pytest fixture for any project: a throw-away SoftHSM2 token in a container, used through a socket as a module.

This file needs pytest and the image `hsmsigner-softhsm:dev` (`make image`), and nothing else of this project: copy it,
or import the fixture into a conftest. Your program loads `softhsm.module` with `softhsm.environment`:

    def test_signs(softhsm: SoftHsmContainer) -> None:
        command = ["your-program", "--module", softhsm.module, "--label", softhsm.label]
        subprocess.run(command, env=os.environ | softhsm.environment, check=True)

The module is p11-kit's client (Debian: p11-kit-modules). One client at a time: SoftHSM2 does not bear two writers.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

IMAGE = "hsmsigner-softhsm:dev"
CLIENT_MODULES = (Path("/usr/lib/pkcs11/p11-kit-client.so"), *Path("/usr/lib").glob("*/pkcs11/p11-kit-client.so"))
PATIENCE_S = 60.0


@dataclass(frozen=True)
class SoftHsmContainer:
    """A running token: how to reach it, and means to hurt it."""

    container: str
    socket: Path
    module: Path
    label: str
    user_pin: str
    so_pin: str

    @property
    def environment(self) -> dict[str, str]:
        """What the process that loads `module` must have."""
        return {"P11_KIT_SERVER_ADDRESS": f"unix:path={self.socket}"}

    def pause(self) -> None:
        """A device that hangs: calls neither return nor fail."""
        docker("pause", self.container)

    def unpause(self) -> None:
        docker("unpause", self.container)


@pytest.fixture
def softhsm() -> Iterator[SoftHsmContainer]:
    """An empty token of this test's own; gone after it."""
    module = next((path for path in CLIENT_MODULES if path.exists()), None)
    if module is None:
        pytest.skip("p11-kit's client module (package p11-kit-modules) is not installed")
    with tempfile.TemporaryDirectory(prefix="softhsm-") as folder:
        yield from _run(Path(folder), module)


def _run(folder: Path, module: Path) -> Iterator[SoftHsmContainer]:
    label, user_pin, so_pin = "softhsm", "1234", "5678"
    settings = {"TOKEN_LABEL": label, "TOKEN_PIN": user_pin, "TOKEN_SO_PIN": so_pin}
    container = docker(
        *("run", "--detach", "--pull", "never", "--init", "--network", "none", "--read-only"),
        # p11-kit's server serves the user it runs as, so that must be this one.
        *("--user", f"{os.getuid()}:{os.getgid()}", "--cap-drop", "ALL", "--security-opt", "no-new-privileges:true"),
        *("--tmpfs", "/tmp:mode=1777", "--volume", f"{folder}:/run/pkcs11"),  # noqa: S108 - the container's own
        *(part for name, value in settings.items() for part in ("--env", f"{name}={value}")),
        IMAGE,
    )
    try:
        _wait_until_healthy(container)
        yield SoftHsmContainer(container, folder / "pkcs11.sock", module, label, user_pin, so_pin)
    finally:
        # Whatever the test did to it: paused, killed, gone.
        docker("rm", "--force", "--volumes", container)


def _wait_until_healthy(container: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while (state := docker("inspect", "--format", "{{.State.Status}} {{.State.Health.Status}}", container)) != (
        "running healthy"
    ):
        assert state.startswith("running"), docker("logs", container)
        assert time.monotonic() < deadline, docker("logs", container)
        time.sleep(0.1)


def docker(*arguments: str) -> str:
    """Run the docker command; its output, or an AssertionError with what it said."""
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()
