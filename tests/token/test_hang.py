"""A PKCS#11 call that never returns costs the worker its life, and nobody else's (facts, section 4)."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hsmsigner.operations.ports import SignStatus
from hsmsigner.process import EXIT_RESTART
from hsmsigner.token.client import TokenClient
from tests.signing_tasks import new_key
from tests.softhsm import PATIENCE_S, SoftHsm, until

# Long enough that a busy machine's healthy calls stay below it.
TIMEOUT_S = 5.0
CLIENT_MODULES = [Path("/usr/lib/pkcs11/p11-kit-client.so"), *Path("/usr/lib").glob("*/pkcs11/p11-kit-client.so")]


@pytest.fixture
def remote(tmp_path: Path) -> Iterator[tuple[SoftHsm, subprocess.Popen[bytes]]]:
    """A token behind `p11-kit server`, so that "the device" is a process that can be stopped."""
    module = next((path for path in CLIENT_MODULES if path.exists()), None)
    if module is None or shutil.which("p11-kit") is None:
        pytest.skip("p11-kit with its client module (packages p11-kit, p11-kit-modules) is not installed")
    hsm = SoftHsm.create(tmp_path, call_timeout_s=TIMEOUT_S)
    address = tmp_path / "p11"
    server = subprocess.Popen(
        ["p11-kit", "server", "--foreground", "--name", str(address), "--provider", hsm.token["module"], "pkcs11:"],
        env=os.environ | hsm.token["environment"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    until(address.exists, "p11-kit server listens")
    hsm.token["module"] = str(module)
    hsm.token["environment"] = {"P11_KIT_SERVER_ADDRESS": f"unix:path={address}"}
    yield hsm, server
    # The group: the server forks one process per connection.
    os.killpg(server.pid, signal.SIGKILL)
    server.wait()


def descendants(pid: int) -> list[int]:
    children = [int(child) for task in Path(f"/proc/{pid}/task").iterdir() for child in _children(task)]
    return children + [deeper for child in children for deeper in descendants(child)]


def _children(task: Path) -> list[str]:
    return (task / "children").read_text().split()


def test_call_that_hangs_is_cut_and_the_next_worker_signs(remote: tuple[SoftHsm, subprocess.Popen[bytes]]) -> None:
    hsm, server = remote
    with hsm.start_worker() as worker:

        async def use(client: TokenClient) -> None:
            key = await new_key(client)
            assert (await client.sign([key.task(b"one")]))[0].status is SignStatus.SIGNED
            device = descendants(server.pid)
            assert device
            for pid in device:
                os.kill(pid, signal.SIGSTOP)
            started = time.monotonic()

            (outcome,) = await client.sign([key.task(b"two")])

            assert outcome.status is SignStatus.UNKNOWN
            # The worker was cut; the client itself would have waited for longer.
            assert TIMEOUT_S < time.monotonic() - started < PATIENCE_S
            assert await asyncio.to_thread(worker.wait) == EXIT_RESTART
            for pid in device:
                os.kill(pid, signal.SIGKILL)
            with hsm.start_worker():
                await client.wait_connected()
                assert (await client.sign([key.task(b"two")]))[0].status is SignStatus.SIGNED

        hsm.ask(use)
        assert "has not returned" in worker.output()


def test_device_that_is_lost_gives_honest_outcomes_and_a_fresh_worker(
    remote: tuple[SoftHsm, subprocess.Popen[bytes]],
) -> None:
    hsm, server = remote
    with hsm.start_worker() as worker:

        async def use(client: TokenClient) -> None:
            key = await new_key(client)
            assert (await client.sign([key.task(b"one")]))[0].status is SignStatus.SIGNED
            for pid in descendants(server.pid):
                os.kill(pid, signal.SIGKILL)

            outcomes = await client.sign([key.task(b"%d" % number) for number in range(20)])

            assert {outcome.status for outcome in outcomes} <= {SignStatus.UNKNOWN, SignStatus.NOT_CALLED}

        hsm.ask(use)
        assert worker.wait() == EXIT_RESTART
