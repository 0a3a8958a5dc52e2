"""P8: a lost, hung, crashing or stopped token or worker gives honest outcomes, and heals by a fresh worker."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Callable

import pytest

from hsmsigner.domain.algorithm import ALGORITHMS
from hsmsigner.errors import Reason, SignerError
from hsmsigner.operations.ports import SignOutcome, SignStatus, SignTask
from hsmsigner.process import EXIT_RESTART
from hsmsigner.token.client import TokenClient
from tests.signing_tasks import TestKey, check_signature, new_key
from tests.softhsm import PATIENCE_S, RUN_WORKER, SoftHsm, Worker, until


async def eventually(condition: Callable[[], bool], what: str) -> None:
    """`until`, without blocking the event loop."""
    await asyncio.to_thread(until, condition, what)


def is_cut(connection: socket.socket) -> bool:
    """Wait for the other end to close; data it left unread shows as a reset."""
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True


async def sign_one(client: TokenClient, task: SignTask) -> SignOutcome:
    (outcome,) = await client.sign([task])
    return outcome


async def sign_until_it_works(client: TokenClient, task: SignTask) -> SignOutcome:
    async with asyncio.timeout(PATIENCE_S):
        while (outcome := await sign_one(client, task)).status is not SignStatus.SIGNED:
            await client.wait_connected()
            await asyncio.sleep(0)
    return outcome


def test_worker_killed_in_a_batch_gives_unknown_and_the_client_finds_the_next_one(hsm: SoftHsm, worker: Worker) -> None:
    async def use(client: TokenClient) -> None:
        # Many seconds of work, so that the batch is not over when the kill comes, however late that is.
        key = await new_key(client, ALGORITHMS["RSA_PSS_3072_SHA256"])
        batch = [key.task(b"%d" % number) for number in range(4000)]
        under_way = asyncio.create_task(client.sign(batch))
        # Its answer comes after the batch has been read, as one connection's calls are started in order.
        await client.sign([key.task(b"after")])
        worker.process.kill()

        outcomes = await under_way

        assert Counter(outcome.status for outcome in outcomes) == {SignStatus.UNKNOWN: len(batch)}
        await eventually(lambda: not client.connected, "the client notices")
        assert (await sign_one(client, batch[0])).status is SignStatus.NOT_CALLED
        with pytest.raises(SignerError) as refusal:
            await client.status()
        assert refusal.value.reason is Reason.TOKEN_UNAVAILABLE
        with hsm.start_worker():
            outcome = await sign_until_it_works(client, batch[0])
            check_signature(key.pair.public_key, key.algorithm, b"0", outcome.signature)

    hsm.ask(use)


def test_deadline_after_sending_gives_unknown(hsm: SoftHsm, worker: Worker) -> None:
    async def use() -> SignOutcome:
        async with hsm.connected() as patient, hsm.connected(deadline_s=0.2) as hasty:
            key = await new_key(patient)
            worker.process.send_signal(signal.SIGSTOP)
            try:
                return await sign_one(hasty, key.task(b"message"))
            finally:
                worker.process.send_signal(signal.SIGCONT)

    assert asyncio.run(use()).status is SignStatus.UNKNOWN


@pytest.mark.parametrize(
    "garbage", [b"GET / HTTP/1.1\r\n\r\n", b"\0\0\0\4\xff\xff\xff\xff", b"\xff\xff\xff\xff" + bytes(100)]
)
def test_garbage_costs_its_own_connection_only(shared_hsm: SoftHsm, garbage: bytes) -> None:
    async def use(client: TokenClient) -> None:
        key = await new_key(client)
        with socket.socket(socket.AF_UNIX) as vandal:
            vandal.settimeout(PATIENCE_S)
            vandal.connect(str(shared_hsm.settings.token_socket))
            vandal.sendall(garbage)
            assert await asyncio.to_thread(is_cut, vandal)
        assert (await sign_one(client, key.task(b"message"))).status is SignStatus.SIGNED

    shared_hsm.ask(use)


def test_half_a_frame_does_not_hold_others_up(shared_hsm: SoftHsm) -> None:
    async def use(client: TokenClient) -> None:
        with socket.socket(socket.AF_UNIX) as slow:
            slow.connect(str(shared_hsm.settings.token_socket))
            slow.sendall(b"\0\0\1")
            await client.status()

    shared_hsm.ask(use)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can start a process of another user")
def test_process_of_another_user_is_refused_even_if_it_can_open_the_socket(hsm: SoftHsm, worker: Worker) -> None:
    address = hsm.settings.token_socket
    connect = "s = socket.socket(socket.AF_UNIX); s.connect('token.sock'); print(s.recv(1))"
    address.chmod(0o777)
    # The folder is entered before the user is changed, as pytest's own folders are closed to others.
    script = f"import os, socket; os.chdir({str(address.parent)!r}); os.setgid(65534); os.setuid(65534); {connect}"
    address.parent.chmod(0o777)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.stdout == "b''\n" or "ConnectionReset" in done.stderr, done
    hsm.ask(lambda client: client.status())
    worker.stop()
    assert "user id 65534 was refused" in worker.output()


def test_sigterm_under_load_finishes_what_was_started(hsm: SoftHsm, worker: Worker) -> None:
    async def use(client: TokenClient) -> list[SignOutcome]:
        key = await new_key(client)
        calls = [
            asyncio.create_task(client.sign([key.task(b"%d" % number) for number in range(300)])) for _ in range(8)
        ]
        await client.sign([key.task(b"after")])
        worker.process.send_signal(signal.SIGTERM)
        return [outcome for outcomes in await asyncio.gather(*calls) for outcome in outcomes]

    outcomes = hsm.ask(use)
    assert Counter(outcome.status for outcome in outcomes) == {SignStatus.SIGNED: 2400}
    assert worker.wait() == 0
    assert not hsm.settings.token_socket.exists()


def test_token_folder_that_goes_and_comes_back_heals_through_fresh_workers(hsm: SoftHsm, worker: Worker) -> None:
    tokens = hsm.state / "token" / "tokens"
    away = tokens.with_name("away")

    async def use(client: TokenClient) -> TestKey:
        key = await new_key(client)
        await sign_one(client, key.task(b"message"))
        tokens.rename(away)
        outcome = await sign_one(client, key.task(b"message"))
        assert outcome.status is SignStatus.NOT_CALLED
        return key

    key = hsm.ask(use)
    assert worker.wait() == EXIT_RESTART
    with hsm.start_worker(is_ready=False) as too_early:
        # Not 78: it was there before under this supervisor, so waiting can heal it.
        assert too_early.wait() == EXIT_RESTART
    away.rename(tokens)
    with hsm.start_worker():
        outcome = hsm.ask(lambda client: sign_one(client, key.task(b"message")))
    assert outcome.status is SignStatus.SIGNED


def test_status_of_a_token_that_went_away_fails_and_ends_the_worker(hsm: SoftHsm, worker: Worker) -> None:
    tokens = hsm.state / "token" / "tokens"
    tokens.rename(tokens.with_name("away"))
    with pytest.raises(SignerError) as refusal:
        hsm.ask(lambda client: client.status())
    assert refusal.value.reason is Reason.TOKEN_UNAVAILABLE
    assert worker.wait() == EXIT_RESTART


def test_worker_dies_with_its_supervisor(hsm: SoftHsm) -> None:
    path = hsm.write_settings()
    supervise = (
        "import subprocess, sys; "
        "w = subprocess.Popen([sys.executable, '-c', sys.argv[1], sys.argv[2]]); print(w.pid, flush=True); w.wait()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", supervise, RUN_WORKER, str(path)], stdout=subprocess.PIPE, text=True
    ) as supervisor:
        assert supervisor.stdout is not None
        pid = int(supervisor.stdout.readline())
        hsm.wait_for_worker()
        supervisor.kill()
    until(lambda: not _is_running(pid), "the worker dies")


def _is_running(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as stat:  # noqa: PTH123 - gone at any moment
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
