"""The integration tests once more, in the image's Python and as its user."""

from __future__ import annotations

import os
import subprocess

import pytest

from tests.e2e_docker.project import DOCKER

# What depends on SoftHSM2's build, on the user, and on Python's TLS and sockets; HSMSIGNER_TESTS_INSIDE="tests/token
# tests/faults" runs others. The kills of tests/e2e are test_disturbed.py's here.
TESTS = os.environ.get("HSMSIGNER_TESTS_INSIDE", "tests/token tests/e2e/test_edge.py").split()

pytestmark = [pytest.mark.serial, pytest.mark.timeout(500)]


def test_the_integration_tests_pass_inside_the_image() -> None:
    compose = ["docker", "compose", "-f", str(DOCKER / "compose.test.yaml"), "-p", f"hsmsigner-inside-{os.getpid()}"]
    options = ["-n", "2", "--dist", "loadscope", "--no-loadscope-reorder", "-rs"]
    try:
        done = subprocess.run(
            [*compose, "run", "--rm", "tests", *options, *TESTS],
            # It was built a moment ago, with the others.
            env=os.environ | {"HSMSIGNER_PULL_POLICY": "never"},
            capture_output=True,
            text=True,
            check=False,
        )
    finally:
        subprocess.run([*compose, "--profile", "tests", "down", "--volumes"], capture_output=True, check=True)

    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert " passed" in done.stdout
