"""The token worker process: the only one that loads the PKCS#11 module, and the only one that sees the PIN."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import signal
import sys
import threading
from pathlib import Path

from hsmsigner.config import Settings
from hsmsigner.errors import ConfigurationError
from hsmsigner.process import EXIT_CONFIGURATION, EXIT_RESTART, die_with_supervisor, harden_process
from hsmsigner.token.faults import TokenError
from hsmsigner.token.health import Health
from hsmsigner.token.hollow import remove_hollow_keys
from hsmsigner.token.module import TokenModule, open_module
from hsmsigner.token.pool import TokenPool, Watch, Watchdog
from hsmsigner.token.protocol import frame_limit, socket_address
from hsmsigner.token.server import TokenServer
from hsmsigner.token.service import TokenService
from hsmsigner.token.sessions import TokenSession
from hsmsigner.token.unix import (
    hold_lock,
    listening_socket,
    private_folder,
    supervisor_identity,
)

_LOGGER = logging.getLogger(__name__)

_LOCK_PATIENCE_S = 5.0
# A look at every key of the token, on top of what one call may take.
_TIDYING_S = 60.0


def run_token_worker(settings: Settings) -> int:
    """Be the token worker until SIGTERM or until only a fresh process can help.

    Returns the exit code: 0 stopped as told, 75 start another (token lost, hung or not there for now), 78 a fault that
    a restart cannot cure. Does not return when a call hangs: then the process ends with 75 by itself.
    """
    logging.basicConfig(level=settings.log.level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    threading.excepthook = _end_on_broken_thread
    try:
        exit_code = _run(settings)
    except ConfigurationError as error:
        _LOGGER.error("the token worker cannot start: %s", error)  # noqa: TRY400 - the text is the whole message
        return EXIT_CONFIGURATION
    except TokenError as error:
        _LOGGER.error("the token failed: %s", error.cause)  # noqa: TRY400 - a stack says nothing more
        exit_code = EXIT_RESTART
    if exit_code == EXIT_RESTART:
        # The module is in a state that made us give up: its destructors are better not run.
        logging.shutdown()
        os._exit(exit_code)
    return exit_code


def _run(settings: Settings) -> int:
    harden_process()
    die_with_supervisor()
    run_dir = settings.run_dir
    private_folder(run_dir)
    address = socket_address(settings.token_socket)
    lock = hold_lock(run_dir / "token.lock", _LOCK_PATIENCE_S)
    if lock is None:
        _LOGGER.error("another process still holds the token (%s)", run_dir / "token.lock")
        return EXIT_RESTART
    watchdog = Watchdog(settings.token.call_timeout_s)
    watchdog.start()
    watch = watchdog.watch()
    module = _open(settings, watch)
    if module is None:
        return EXIT_RESTART
    with watch:
        sessions = [TokenSession(module.cryptoki, module.open_session()) for _ in range(settings.token.threads)]
        algorithms = module.algorithms()
    with watch:
        watch.grant(_TIDYING_S)
        remove_hollow_keys(sessions[0])
    pool = TokenPool(sessions, watchdog)
    exit_code = asyncio.run(_serve(settings, module, algorithms, pool, address))
    Path(address).unlink(missing_ok=True)
    if exit_code != EXIT_RESTART:
        with watch:
            pool.drain()
            module.close()
    watchdog.stop()
    return exit_code


def _open(settings: Settings, watch: Watch) -> TokenModule | None:
    """Open the token and log in; None when it is away but was there before under the same supervisor.

    The first start says what is wrong and stops. Later the same fault is the token's (unplugged, folder away), and
    stopping would need a hand to heal it.
    """
    seen = settings.run_dir / "token.seen"
    # With the settings: a fault after they changed is theirs.
    identity = f"{supervisor_identity()} {hashlib.sha256(settings.token.model_dump_json().encode()).hexdigest()}"
    pin = settings.token.pin.read()
    try:
        with watch:
            module = open_module(settings.token)
    except ConfigurationError as error:
        if not (seen.exists() and seen.read_text("utf-8") == identity):
            raise
        _LOGGER.error("the token is away: %s", error)  # noqa: TRY400 - the text is the whole message
        return None
    with watch:
        module.login(pin)
    if settings.token.pin.env is not None:
        os.environ.pop(settings.token.pin.env, None)
    seen.write_text(identity, "utf-8")
    return module


async def _serve(settings: Settings, module: TokenModule, algorithms: list[str], pool: TokenPool, address: str) -> int:
    loop = asyncio.get_running_loop()
    health = Health(
        settings.run_dir / "token.missing",
        lambda: server.stop_soon(EXIT_RESTART, "the worker ends to open the token anew"),
    )
    service = TokenService(module, algorithms, pool, health)
    server = TokenServer(service, frame_limit(settings.limits))
    loop.add_signal_handler(signal.SIGTERM, server.stop, 0, "the appliance is stopping")
    # Ctrl-C reaches the whole group; the supervisor decides the order of stopping.
    loop.add_signal_handler(signal.SIGINT, lambda: None)
    pool.start()
    listener = listening_socket(address)
    _LOGGER.info("token %r (serial %s) is open, %d threads", module.label, module.serial, pool.size)
    return await server.serve(listener)


def _end_on_broken_thread(broken: threading.ExceptHookArgs) -> None:
    """Log and end: a thread that died of a fault of ours would leave its callers waiting."""
    if broken.exc_value is not None:
        _LOGGER.critical("a thread broke", exc_info=broken.exc_value)
    sys.stderr.flush()
    os._exit(EXIT_RESTART)
