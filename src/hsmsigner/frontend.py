"""The frontend's process: opens the store, has the parts built, runs them, and stops them in order."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
from collections.abc import Awaitable, Callable
from importlib.metadata import version
from pathlib import Path

import uvloop

from hsmsigner.api.tls import CertificateFiles
from hsmsigner.background import Background
from hsmsigner.config import Settings
from hsmsigner.domain.positioned_yaml import DocumentError
from hsmsigner.errors import ConfigurationError, SignerError
from hsmsigner.operations.denials import report_denials
from hsmsigner.operations.governance import GovernanceCache
from hsmsigner.operations.growth import LogGrowth
from hsmsigner.operations.log_key import require_origin
from hsmsigner.operations.policy import publish_first
from hsmsigner.operations.recovery import interrupt_dangling, record_start
from hsmsigner.parts import Parts, PartsFactory, wall_clock
from hsmsigner.process import EXIT_CONFIGURATION, allow_many_files, harden_process, share_one_cpu
from hsmsigner.store.log import LogDamagedError
from hsmsigner.store.unit_of_work import SqlStore

_log = logging.getLogger(__name__)

_REFRESH_EVERY_S = 1.0
_RETRY_EVERY_S = 1.0


def run_frontend_process(settings: Settings, accepted_rollback: str = "") -> int:
    """Be the frontend's process; returns its exit code.

    Raises:
        ConfigurationError: the appliance cannot start as it is set up.
        SignerError: AUDIT_UNAVAILABLE, the store cannot be opened.
    """
    harden_process()
    allow_many_files()
    # Before gRPC and the store start their threads, which inherit it.
    cpu = share_one_cpu(settings.frontend_cpu)
    _log.info("the threads share one CPU" if cpu is not None else "the threads run on any CPU", extra={"cpu": cpu})
    try:
        uvloop.run(run_frontend(settings, accepted_rollback))
    except LogDamagedError as error:
        _log.error("%s", error)
        return EXIT_CONFIGURATION
    return 0


async def run_frontend(settings: Settings, accepted_rollback: str = "") -> None:
    """Serve until SIGTERM or SIGINT, then finish what was authorized.

    `accepted_rollback` is why the log need not be the one that the token remembers; empty, it must be.

    Raises:
        ConfigurationError: the appliance cannot start as it is set up.
        SignerError: AUDIT_UNAVAILABLE, the store cannot be opened.
        LogDamagedError: the store's log does not end as it was written.
    """
    stopping, certificates = _stop_signal(), CertificateFiles(settings.tls)
    growth, governance = LogGrowth(), GovernanceCache()
    store = SqlStore(settings.store_url, growth.announce)
    await _start_store(store, governance, settings)
    parts = PartsFactory(settings, store, governance, certificates).build(growth, accepted_rollback)
    await parts.client.start()
    background = _start(parts, certificates, stopping)
    _write_address(settings.address_file, await parts.server.start())
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)
    await stopping.wait()
    await parts.server.stop()
    settings.address_file.unlink(missing_ok=True)
    parts.committer.stop()
    try:
        await background.finish()
        await parts.checkpoints.stop()
        await parts.memory.finish()
    finally:
        await parts.client.close()
        # Also when a part failed: a WAL left behind could be applied to another store that is put in this one's place.
        await store.close()


def _start(parts: Parts, certificates: CertificateFiles, stopping: asyncio.Event) -> Background:
    background = Background(stopping)
    # The committer first: the others end before it does.
    for work in (
        parts.committer.run(),
        parts.memory.run(),
        _settle_with_token(*parts.settling),
        parts.scheduler.run(),
        parts.checkpoints.run(),
        parts.witnessing.run(),
        parts.pushing.run(),
        parts.quorum.run(),
        parts.sealing.clean_at_start(),
        parts.health.run(),
        _refresh(certificates),
    ):
        background.start(work)
    return background


async def _start_store(store: SqlStore, governance: GovernanceCache, settings: Settings) -> None:
    await store.reopen()
    await require_origin(store, settings.audit.origin)
    try:
        await publish_first(store, wall_clock, settings.policy.read_bytes())
    except OSError as error:
        raise ConfigurationError(f"cannot read the policy {settings.policy}: {error.strerror}") from error
    except DocumentError as error:
        raise ConfigurationError(f"the policy {settings.policy} has faults:\n{error}") from error
    interrupted = await interrupt_dangling(store, wall_clock)
    await record_start(store, wall_clock, version("hsmsigner"), interrupted)
    await governance.reload(store)
    await report_denials(store, governance, wall_clock)


async def _settle_with_token(*steps: Callable[[], Awaitable[object]]) -> None:
    """Finish or remove what was left half-made, then see what the token lacks; waits for it as long as needed."""
    while True:
        try:
            for step in steps:
                await step()
        except SignerError as error:
            _log.info("store and token have to wait for each other: %s", error.message)
            await asyncio.sleep(_RETRY_EVERY_S)
        else:
            return


async def _refresh(certificates: CertificateFiles) -> None:
    while True:
        await asyncio.sleep(_REFRESH_EVERY_S)
        certificates.refresh()


def _stop_signal() -> asyncio.Event:
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    return stopping


def _write_address(path: Path, address: str) -> None:
    # Renamed into place: whoever waits for the file never reads half an address.
    waiting = path.with_suffix(".new")
    waiting.write_text(address + "\n")
    waiting.replace(path)
    _log.info("serving", extra={"address": address})
