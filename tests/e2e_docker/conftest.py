"""The images, built once, and compose projects of them; without an engine these tests are skipped, but not in CI."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest
from pytest_docker.plugin import get_docker_services

from tests.e2e.appliance import free_port
from tests.e2e_docker.project import COMPOSE_FILE, ROOT, ComposeAppliance, StartAppliance
from tests.softhsm_container import softhsm

__all__ = ["softhsm"]

QUICK_HEALTH = Path(__file__).with_name("quick-health.yaml")
MISSING = "no docker engine with Compose v2 answers; `make test-e2e` installs and starts one"
BUILD_TIMEOUT_S = 600


@cache
def has_engine() -> bool:
    try:
        checks = [
            subprocess.run(command, capture_output=True, check=False, timeout=60).returncode == 0
            for command in (["docker", "compose", "version"], ["docker", "info"])
        ]
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return False
    return all(checks)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = [item for item in items if item.path.is_relative_to(Path(__file__).parent)]
    if here and os.environ.get("CI", "") in {"", "0", "false"} and not has_engine():
        for item in here:
            item.add_marker(pytest.mark.skip(reason=MISSING))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if any(MISSING in str(report.longrepr) for report in terminalreporter.stats.get("skipped", [])):
        terminalreporter.write_line(f"container tests skipped: {MISSING}")


@pytest.fixture(scope="session", autouse=True)
def images() -> None:
    """All images, newly built from this tree."""
    if not has_engine():
        pytest.fail(f"{MISSING} (CI is set, so this is a failure)")
    subprocess.run(["scripts/images", "--quiet"], cwd=ROOT, check=True, timeout=BUILD_TIMEOUT_S)


@pytest.fixture(scope="session")
def start_appliance(images: None, tmp_path_factory: pytest.TempPathFactory) -> StartAppliance:
    """A function that starts a compose project of its own: `with start_appliance("name", overrides) as appliance`."""

    @contextmanager
    def start(name: str, *overrides: Path, **environment: str) -> Iterator[ComposeAppliance]:
        with pytest.MonkeyPatch.context() as patch:
            port = free_port()
            # pytest-docker's own commands take compose's variables from here.
            for variable, value in {"HSMSIGNER_PORT": str(port), **environment}.items():
                patch.setenv(variable, value)
            files = [str(COMPOSE_FILE), str(QUICK_HEALTH), *map(str, overrides)]
            project = f"hsmsigner-{name}-{os.getpid()}"
            down = "--profile '*' down --volumes --timeout 40"
            # Its set-up would be outside of what it cleans up, so `up` is ours.
            with get_docker_services("docker compose", files, project, [], [down]):
                appliance = ComposeAppliance(files, project, port, tmp_path_factory.mktemp(name))
                appliance.up()
                appliance.fetch_clients()
                yield appliance

    return start


@pytest.fixture(scope="session")
def appliance(start_appliance: StartAppliance) -> Iterator[ComposeAppliance]:
    """One project for all tests that leave it running as they found it; each publishes the quotas that it is about."""
    with start_appliance("shared") as appliance:
        appliance.create_key()
        yield appliance
