"""The image as it is: what it says of itself, what is not in it, and how it fails when it is set up wrongly."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.appliance import free_port, until
from tests.e2e_docker.project import COMPOSE_FILE, DOCKER, ROOT
from tests.softhsm_container import docker

pytestmark = pytest.mark.serial
IMAGE = "hsmsigner:dev"
LARGEST_IMAGE_BYTES = 250_000_000
LOOK_AROUND = """
import json, os, shutil, stat
places = '/bin:/sbin:/usr/bin:/usr/sbin:/usr/local/bin:/opt/hsmsigner/bin'
tools = [tool for tool in 'sh bash dash gcc cc ld apt dpkg perl pip openssl su mount'.split()
         if shutil.which(tool, path=places)]
builder = [path for path in ('/etc/apt', '/etc/pip.conf', '/etc/ssl/certs', '/usr/local/share/ca-certificates')
           if os.path.exists(path)]
loose = []
for folder, folders, files in os.walk('/'):
    folders[:] = [name for name in folders if os.path.join(folder, name) not in ('/proc', '/sys', '/dev')]
    for path in (os.path.join(folder, name) for name in folders + files):
        mode = os.lstat(path).st_mode
        if stat.S_ISREG(mode) and mode & (stat.S_ISUID | stat.S_ISGID):
            loose.append(path)
        elif not stat.S_ISLNK(mode) and mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
            loose.append(path)
print(json.dumps({'tools': tools, 'of the builder': builder, 'loose': loose}))
"""


@pytest.fixture(scope="module")
def image(images: None) -> dict[str, Any]:
    return dict(json.loads(docker("image", "inspect", IMAGE))[0])


def test_the_image_is_small_labelled_and_not_roots(image: dict[str, Any]) -> None:
    labels = image["Config"]["Labels"]

    assert image["Size"] < LARGEST_IMAGE_BYTES
    assert image["Config"]["User"] == "10001:10001"
    assert image["Config"]["Healthcheck"]["Test"] == ["CMD", "python", "-m", "hsmsigner.cli.health"]
    assert labels["org.opencontainers.image.title"] == "hsmsigner"
    assert labels["org.opencontainers.image.version"] == version("hsmsigner")
    assert labels["org.opencontainers.image.revision"]


def test_the_image_has_no_shell_no_compiler_nothing_of_its_builder_and_no_way_up() -> None:
    found = docker(
        *("run", "--rm", "--pull", "never", "--network", "none", "--user", "0", "--entrypoint", "python"),
        *(IMAGE, "-c", LOOK_AROUND),
    )

    assert json.loads(found) == {"tools": [], "of the builder": [], "loose": []}


def test_the_image_without_settings_says_what_is_missing() -> None:
    done = subprocess.run(
        ["docker", "run", "--rm", "--pull", "never", "--read-only", IMAGE], capture_output=True, text=True, check=False
    )

    assert done.returncode == 3
    assert "/etc/hsmsigner/hsmsigner.yaml" in done.stderr


@contextmanager
def project(file: Path, name: str, **variables: str) -> Iterator[list[str]]:
    """The words that begin each command on a compose project of this name, which is gone afterwards."""
    command = ["docker", "compose", "-f", str(file), "-p", f"hsmsigner-{name}-{os.getpid()}"]
    with pytest.MonkeyPatch.context() as patch:
        for variable, value in variables.items():
            patch.setenv(variable, value)
        try:
            yield command
        finally:
            subprocess.run([*command, "down", "--volumes", "--timeout", "5"], capture_output=True, check=True)


def test_an_appliance_set_up_wrongly_in_front_of_an_hsm_is_tried_three_times_and_no_more(tmp_path: Path) -> None:
    folders = {name: tmp_path / name for name in ("settings", "vendor")}
    for folder in folders.values():
        folder.mkdir()
    (tmp_path / "pin").write_text("314159")
    variables = {
        "HSMSIGNER_SETTINGS": str(folders["settings"]),
        "VENDOR_FOLDER": str(folders["vendor"]),
        "HSMSIGNER_PIN_FILE": str(tmp_path / "pin"),
        "HSMSIGNER_LISTEN": f"127.0.0.1:{free_port()}",
    }

    with project(DOCKER / "compose.hsm.yaml", "hsm", **variables) as compose:
        subprocess.run([*compose, "up", "--detach"], capture_output=True, check=True)
        container = subprocess.run(
            [*compose, "ps", "--all", "--quiet"], capture_output=True, text=True, check=True
        ).stdout.strip()

        def described() -> dict[str, Any]:
            return dict(json.loads(docker("inspect", container))[0])

        until(lambda: described()["State"]["Status"] == "exited", "docker gives the container up", 60.0)
        assert described()["RestartCount"] == 2
        assert described()["State"]["ExitCode"] == 3
        assert described()["HostConfig"]["CapDrop"] == ["ALL"]
        assert described()["HostConfig"]["ReadonlyRootfs"]


def test_a_volume_of_another_user_is_named(tmp_path: Path) -> None:
    pin = tmp_path / "pin"
    pin.write_text("314159")
    done = subprocess.run(
        [
            *("docker", "run", "--rm", "--pull", "never", "--volume", f"{pin}:/run/secrets/token_pin:ro"),
            *("--tmpfs", "/var/lib/hsmsigner:uid=0,mode=0700", "--entrypoint", "python", IMAGE),
            *("-m", "hsmsigner.cli.container"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 3
    assert "cannot use /var/lib/hsmsigner: Permission denied" in done.stderr
    assert "user 10001" in done.stderr


def test_a_pin_file_that_the_container_may_not_read_is_named(tmp_path: Path) -> None:
    pin = tmp_path / "pin"
    pin.write_text("314159")
    pin.chmod(0o600)
    variables = {"HSMSIGNER_PIN_FILE": str(pin), "HSMSIGNER_PORT": str(free_port())}

    with project(COMPOSE_FILE, "pin", **variables) as compose:
        done = subprocess.run(
            [*compose, "run", "--rm", "--no-deps", "hsmsigner"], capture_output=True, text=True, check=False
        )

    assert done.returncode == 3
    assert "/run/secrets/token_pin cannot be read by user 10001" in done.stderr + done.stdout
    assert "Traceback" not in done.stderr + done.stdout


def test_two_make_compose_up_at_once_start_one_appliance(tmp_path: Path) -> None:
    name = f"hsmsigner-twice-{os.getpid()}"
    variables = {
        "COMPOSE_PROJECT_NAME": name,
        "HSMSIGNER_PORT": str(free_port()),
        # An engine that was started elsewhere is nobody's to hold.
        "HSMSIGNER_ENGINE_MEMORY": str(tmp_path / "memory"),
    }
    with project(COMPOSE_FILE, "twice", **variables):
        starts = [
            subprocess.Popen(
                ["make", "compose-up"], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
            )
            for _ in range(2)
        ]
        said = [start.communicate(timeout=240)[0] for start in starts]

        assert [start.returncode for start in starts] == [0, 0], said
        assert len(docker("network", "ls", "--quiet", "--filter", f"name={name}_default").split()) == 1
