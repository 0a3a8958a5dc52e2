"""One compose project with an appliance in it, seen from the host."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from hsmsigner.client import SignerClient, SigningClientError
from tests.e2e.appliance import OPERATOR_RIGHTS, UNLIMITED_POLICY, until

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "docker"
COMPOSE_FILE = DOCKER / "compose.yaml"
STATE = "/var/lib/hsmsigner/appliance"
COMMAND_TIMEOUT_S = 120


def policy_with(quotas: str) -> str:
    """A policy document whose only bound on signing is the quotas, written as YAML."""
    return UNLIMITED_POLICY % (OPERATOR_RIGHTS, quotas)


@dataclass
class ComposeAppliance:
    """Knows the project's files and name, and the folder that certificates and copies of the store are put in."""

    files: list[str]
    project: str
    port: int
    folder: Path

    @property
    def database(self) -> Path:
        """The store as `copy_store` found it."""
        return self.folder / "appliance" / "store.sqlite3"

    def compose(self, *arguments: str) -> str:
        """Run `docker compose ...` on this project; its stdout."""
        done = self._run(*arguments)
        assert done.returncode == 0, f"docker compose {arguments}: {done.stdout} {done.stderr}"
        return done.stdout.strip()

    def up(self) -> None:
        """Start what does not run and wait until all is healthy; fails with the containers' logs."""
        done = self._run("up", "--wait", "--no-build")
        assert done.returncode == 0, done.stderr + self._run("logs").stdout

    def _run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        files = [part for file in self.files for part in ("-f", file)]
        return subprocess.run(
            ["docker", "compose", *files, "-p", self.project, *arguments],
            capture_output=True,
            text=True,
            check=False,
            timeout=COMMAND_TIMEOUT_S,
        )

    def python(self, program: str) -> str:
        """Run a line of Python inside the container, which has no shell; its output."""
        return self.compose("exec", "-T", "hsmsigner", "python", "-c", program)

    def fetch_clients(self) -> None:
        """Copy certificates and profiles out of the container."""
        self.compose("cp", "hsmsigner:/clients", str(self.folder))

    def client(self, profile: str = "engine") -> SignerClient:
        return SignerClient.from_profile(self.folder / "clients" / "host" / f"{profile}.yaml")

    def create_key(self, key_id: str = "settlement-eu") -> None:
        with self.client("operator") as client:
            client.create_key(key_id, "ECDSA_P256_SHA256")

    def publish_quotas(self, quotas: str) -> None:
        with self.client("operator") as client:
            client.publish_policy(policy_with(quotas), comment="for this test")

    def is_serving(self) -> bool:
        try:
            with self.client("operator") as client:
                return client.health("hsmsigner.v1.SigningService", timeout_s=2.0)
        except SigningClientError:
            return False

    def wait_until_serving(self) -> None:
        until(self.is_serving, "the appliance in the container serves", 90.0)

    def copy_store(self) -> None:
        """Copy the state folder out; call it while nothing is being signed."""
        self.compose("cp", f"hsmsigner:{STATE}", str(self.folder))


StartAppliance = Callable[..., AbstractContextManager[ComposeAppliance]]
