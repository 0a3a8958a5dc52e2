"""Composition root: the frontend is built from its parts here, and run. Nowhere else are parts wired together."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import time
from collections.abc import Awaitable, Callable
from importlib.metadata import version
from pathlib import Path
from uuid import uuid4

import uvloop

from hsmsigner.api.authn import Authenticator
from hsmsigner.api.health import Health
from hsmsigner.api.key_service import KeyUseCases
from hsmsigner.api.server import ApiServer, UseCases
from hsmsigner.api.tls import CertificateFiles
from hsmsigner.background import Background
from hsmsigner.config import AuditSettings, Settings
from hsmsigner.domain.instant import Instant
from hsmsigner.domain.positioned_yaml import DocumentError
from hsmsigner.errors import ConfigurationError, SignerError
from hsmsigner.operations.adoption import Adoption
from hsmsigner.operations.audit import Audit
from hsmsigner.operations.certificates import Certificates
from hsmsigner.operations.checkpoints import CheckpointRules, Checkpoints
from hsmsigner.operations.committer import Committer, CommitterLimits
from hsmsigner.operations.denials import report_denials
from hsmsigner.operations.governance import GovernanceCache
from hsmsigner.operations.grace import DestructionGrace
from hsmsigner.operations.growth import LogGrowth
from hsmsigner.operations.guarded_token import GuardedToken
from hsmsigner.operations.keys import Keys
from hsmsigner.operations.lifecycle import Lifecycle
from hsmsigner.operations.log_key import LogKey, require_origin
from hsmsigner.operations.log_status import LogSources
from hsmsigner.operations.log_watch import LogWatch
from hsmsigner.operations.policy import Policies, publish_first
from hsmsigner.operations.pushing import Pushing
from hsmsigner.operations.quorum import QuorumGate
from hsmsigner.operations.reconcile import compare_with_token, missing_pairs
from hsmsigner.operations.recovery import interrupt_dangling, record_start
from hsmsigner.operations.rotation import Rotations
from hsmsigner.operations.scheduler import Scheduler
from hsmsigner.operations.sealing import Sealing
from hsmsigner.operations.sign import Signing
from hsmsigner.operations.token_memory import MemoryRules, TokenMemory
from hsmsigner.operations.unwanted import discard_all
from hsmsigner.operations.witnessing import Witnessing
from hsmsigner.process import EXIT_CONFIGURATION, allow_many_files, harden_process
from hsmsigner.store.log import LogDamagedError
from hsmsigner.store.unit_of_work import SqlStore
from hsmsigner.token.client import TokenClient
from hsmsigner.token.protocol import frame_limit
from hsmsigner.witness.setup import make_targets, make_witnesses

_log = logging.getLogger(__name__)

_REFRESH_EVERY_S = 1.0
_RETRY_EVERY_S = 1.0
_DEADLINE_MARGIN_S = 5.0


def wall_clock() -> Instant:
    """Now, as the machine's clock has it."""
    return Instant(time.time_ns() // 1000)


def run_frontend_process(settings: Settings, accepted_rollback: str = "") -> int:
    """Be the frontend's process; returns its exit code.

    Raises:
        ConfigurationError: the appliance cannot start as it is set up.
        SignerError: AUDIT_UNAVAILABLE, the store cannot be opened.
    """
    harden_process()
    allow_many_files()
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
    stopping = _stop_signal()
    certificates = CertificateFiles(settings.tls)
    growth, governance = LogGrowth(), GovernanceCache()
    store = SqlStore(settings.store_url, growth.announce)
    await _start_store(store, governance, settings)
    limits = settings.limits
    # Longer than the watchdog's, so that a hung call is first cut where the token is.
    client = TokenClient(
        settings.token_socket,
        deadline_s=settings.token.call_timeout_s + _DEADLINE_MARGIN_S,
        frame_limit=frame_limit(limits),
    )
    token, audit = GuardedToken(client), settings.audit
    rules = MemoryRules(audit.origin, audit.remember_interval_s, accepted_rollback)
    memory = TokenMemory(store, token, wall_clock, rules)
    pushing, witnessing, quorum = _outside(store, audit)
    committer = Committer(
        store,
        token,
        governance,
        wall_clock,
        CommitterLimits(limits.queue, limits.queue_bytes, limits.request_retention_s),
        gates=(token.refusal, quorum.refusal),
    )
    keys = Keys(store, token, governance, wall_clock)
    rotations = Rotations(store, token, governance, wall_clock)
    lifecycle = Lifecycle(store, token, governance, wall_clock, rotations)
    holder, grace = str(uuid4()), DestructionGrace(settings.keys.destruction_grace_s)
    scheduler = Scheduler(store, governance, wall_clock, rotations, lifecycle, holder=holder, grace=grace)
    checkpoints = Checkpoints(
        store,
        token,
        governance,
        wall_clock,
        LogKey(store, token, governance, keys, audit.origin),
        growth=growth,
        rules=CheckpointRules(audit.origin, audit.checkpoint_records, audit.checkpoint_interval_s),
        holder=holder,
        observers=(memory.on_signed, pushing.on_signed, witnessing.on_signed),
        gate=token.refusal,
    )
    sealing = Sealing(store, governance, wall_clock)
    health = Health(
        token,
        lambda: committer.can_record,
        lambda: missing_pairs(governance.newest),
        lambda: token.refusal() is None and quorum.refusal() is None,
    )
    use_cases = UseCases(
        Signing(committer),
        KeyUseCases(
            keys,
            lifecycle,
            rotations,
            Adoption(store, token, governance, wall_clock),
            Certificates(store, token, governance, wall_clock),
            governance,
        ),
        Policies(store, governance, wall_clock),
        Audit(
            store,
            governance,
            origin=audit.origin,
            next_checkpoint_s=audit.checkpoint_interval_s,
            sources=LogSources(
                audit.quorum,
                audit.without_quorum == "stop",
                witnessing.status,
                pushing.status,
                lambda: memory.remembered_size,
            ),
        ),
        LogWatch(store, governance, growth),
        sealing,
    )
    server = ApiServer(settings, use_cases, Authenticator(certificates.is_revoked, wall_clock), certificates, health)
    await client.start()
    background = Background(stopping)
    # The committer first: the others end before it does.
    for work in (
        committer.run(),
        memory.run(),
        _settle_with_token(
            keys.finish_pending,
            lambda: discard_all(store, token, governance, wall_clock),
            lambda: compare_with_token(store, token, governance, wall_clock),
        ),
        scheduler.run(),
        checkpoints.run(),
        witnessing.run(),
        pushing.run(),
        quorum.run(),
        sealing.clean_at_start(),
        health.run(),
        _refresh(certificates),
    ):
        background.start(work)
    _write_address(settings.address_file, await server.start())
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)
    await stopping.wait()
    await server.stop()
    settings.address_file.unlink(missing_ok=True)
    committer.stop()
    try:
        await background.finish()
        await checkpoints.stop()
        await memory.finish()
    finally:
        await client.close()
        # Also when a part failed: a WAL left behind could be applied to another store that is put in this one's place.
        await store.close()


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


def _outside(store: SqlStore, audit: AuditSettings) -> tuple[Pushing, Witnessing, QuorumGate]:
    """Those outside who are shown the checkpoints, and the rule that may stop signing without them."""
    pushing = Pushing(make_targets(audit.push), wall_clock)
    pairs = [(witness.vkey, witness.url) for witness in audit.witnesses]
    witnessing = Witnessing(store, make_witnesses(pairs), (pushing.on_signed,))
    needed = audit.quorum if audit.without_quorum == "stop" else 0
    gate = QuorumGate(store, wall_clock, witnessing.learn, quorum=needed, patience_s=audit.witness_patience_s)
    return pushing, witnessing, gate


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
