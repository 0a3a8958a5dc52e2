"""What no appliance on this machine can pass, for `hsmsigner bench`: the bare token, and an empty gRPC server."""

from __future__ import annotations

import asyncio
import hashlib
import os
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

import grpc
import uvloop

from hsmsigner.cli.bench_load import MESSAGE, LoadPlan, LoadResult, closed_loop
from hsmsigner.client import Credentials
from hsmsigner.config import load_settings
from hsmsigner.dev_ca import DevelopmentCa, PemPair
from hsmsigner.provision import initialise_state
from hsmsigner.token.keys import TokenKeys
from hsmsigner.token.mechanism import MECHANISMS
from hsmsigner.token.module import TokenModule, open_module
from hsmsigner.token.sessions import KeyIdentity, TokenSession

_ALGORITHM = "ECDSA_P256_SHA256"
_CKA_ID = b"bench"
_ECHO_METHOD = "/hsmsigner.bench.Echo/Echo"
_START_TIMEOUT_S = 30.0


def bare_token_rates(directory: Path, seconds: float) -> dict[int, float]:
    """Signatures per second, each verified, by number of threads; on a throw-away token made in `directory`.

    Goes through the worker's own calls, which are faster than python-pkcs11's: so it is the higher of the two limits.
    Loads the PKCS#11 module into this process, which must not go on to anything else.

    Raises:
        ConfigurationError: there is no SoftHSM2, or the token cannot be made.
        TokenError: the token failed.
    """
    initialise_state(directory, now=datetime.now(UTC))
    most = max(2, min(os.cpu_count() or 1, 8))
    settings = load_settings(directory / "hsmsigner.yaml").token.model_copy(update={"threads": most})
    with closing(open_module(settings)) as module:
        module.login(settings.pin.read())
        with closing(TokenSession(module.cryptoki, module.open_session())) as session:
            pair = TokenKeys(threading.Lock()).generate(session, _CKA_ID, "bench", MECHANISMS[_ALGORITHM])
        key = KeyIdentity(_CKA_ID, pair.public_key, _ALGORITHM)
        return {threads: _rate(module, key, threads, seconds) for threads in range(1, most + 1)}


def _rate(module: TokenModule, key: KeyIdentity, threads: int, seconds: float) -> float:
    counts: list[int] = []
    stop = threading.Event()

    def sign_until_stopped() -> None:
        with closing(TokenSession(module.cryptoki, module.open_session())) as session:
            usable = session.key(key)
            count = 0
            while not stop.is_set():
                digest = hashlib.sha256(MESSAGE).digest()
                usable.verify(session.sign(usable, digest), digest)
                count += 1
            counts.append(count)

    workers = [threading.Thread(target=sign_until_stopped) for _ in range(threads)]
    begin = time.perf_counter()
    for worker in workers:
        worker.start()
    stop.wait(seconds)
    stop.set()
    for worker in workers:
        worker.join()
    return sum(counts) / (time.perf_counter() - begin)


@contextmanager
def echo_server() -> Iterator[tuple[str, Credentials]]:
    """An empty grpc.aio server with mTLS in a process of its own: its address and a client's credentials."""
    now = datetime.now(UTC)
    authority = DevelopmentCa.create("bench CA", now)
    client = authority.issue_client("spiffe://dev.hsmsigner/bench/client", now)
    credentials = Credentials(authority.pem.certificate, client.certificate, client.private_key)
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    server = context.Process(
        target=_serve_echo, args=(theirs, authority.pem.certificate, authority.issue_server(["127.0.0.1"], now))
    )
    server.start()
    # The child has its own copy; with ours closed, its death is an EOFError here and not a wait without end.
    theirs.close()
    try:
        if not ours.poll(_START_TIMEOUT_S):
            raise TimeoutError("the echo server did not start")
        yield f"127.0.0.1:{ours.recv()}", credentials
    finally:
        # The server ends when its end of the pipe does.
        ours.close()
        server.join(10)
        if server.is_alive():
            server.kill()


def _serve_echo(connection: Connection, ca: bytes, pair: PemPair) -> None:
    uvloop.run(_echo(connection, ca, pair))


async def _echo(connection: Connection, ca: bytes, pair: PemPair) -> None:
    async def answer(request: bytes, _context: object) -> bytes:
        return request

    handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(answer)
    service, method = _ECHO_METHOD.strip("/").split("/")
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {method: handler}),))
    credentials = grpc.ssl_server_credentials([(pair.private_key, pair.certificate)], ca, require_client_auth=True)
    port = server.add_secure_port("127.0.0.1:0", credentials)
    await server.start()
    connection.send(port)
    asked_to_stop = asyncio.Event()
    asyncio.get_running_loop().add_reader(connection.fileno(), asked_to_stop.set)
    await asked_to_stop.wait()
    await server.stop(None)


def run_echo_load(address: str, credentials: Credentials, plan: LoadPlan) -> LoadResult:
    """Load the echo server, in this process, with messages as long as a signing request's."""
    return uvloop.run(_run_echo_load(address, credentials, plan))


async def _run_echo_load(address: str, credentials: Credentials, plan: LoadPlan) -> LoadResult:
    async with grpc.aio.secure_channel(address, credentials.channel_credentials()) as channel:
        echo: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(_ECHO_METHOD)

        async def call() -> None:
            await echo(MESSAGE, timeout=30)

        return await closed_loop(call, plan)
