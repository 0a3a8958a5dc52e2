"""Composition root: every part of the frontend is built here, and nowhere else are parts wired together."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from uuid import uuid4

from hsmsigner.api.authn import Authenticator
from hsmsigner.api.health import Health
from hsmsigner.api.key_service import KeyUseCases
from hsmsigner.api.server import ApiServer, UseCases
from hsmsigner.api.tls import CertificateFiles
from hsmsigner.config import Settings
from hsmsigner.domain.instant import Instant
from hsmsigner.operations.adoption import Adoption
from hsmsigner.operations.audit import Audit
from hsmsigner.operations.certificates import Certificates
from hsmsigner.operations.checkpoints import CheckpointRules, Checkpoints
from hsmsigner.operations.committer import Committer, CommitterLimits
from hsmsigner.operations.governance import GovernanceCache
from hsmsigner.operations.grace import DestructionGrace
from hsmsigner.operations.growth import LogGrowth
from hsmsigner.operations.guarded_token import GuardedToken
from hsmsigner.operations.keys import Keys
from hsmsigner.operations.lifecycle import Lifecycle
from hsmsigner.operations.log_key import LogKey
from hsmsigner.operations.log_status import LogSources
from hsmsigner.operations.log_watch import LogWatch
from hsmsigner.operations.policy import Policies
from hsmsigner.operations.pushing import Pushing
from hsmsigner.operations.quorum import QuorumGate
from hsmsigner.operations.reconcile import compare_with_token, missing_pairs
from hsmsigner.operations.rotation import Rotations
from hsmsigner.operations.scheduler import Scheduler
from hsmsigner.operations.sealing import Sealing
from hsmsigner.operations.sign import Signing
from hsmsigner.operations.token_memory import MemoryRules, TokenMemory
from hsmsigner.operations.unwanted import discard_all
from hsmsigner.operations.witnessing import Witnessing
from hsmsigner.store.unit_of_work import SqlStore
from hsmsigner.token.client import TokenClient
from hsmsigner.token.protocol import frame_limit
from hsmsigner.witness.setup import make_targets, make_witnesses

_DEADLINE_MARGIN_S = 5.0


def wall_clock() -> Instant:
    """Now, as the machine's clock has it."""
    return Instant(time.time_ns() // 1000)


@dataclass(frozen=True, slots=True)
class Parts:
    """What the frontend runs. `settling` are the steps by which store and token agree again after a start."""

    client: TokenClient
    committer: Committer
    memory: TokenMemory
    scheduler: Scheduler
    checkpoints: Checkpoints
    witnessing: Witnessing
    pushing: Pushing
    quorum: QuorumGate
    sealing: Sealing
    health: Health
    server: ApiServer
    settling: tuple[Callable[[], Awaitable[object]], ...]


@dataclass(frozen=True, slots=True)
class _Outside:
    """Those outside who are shown the checkpoints, and the rule that may stop signing without them."""

    pushing: Pushing
    witnessing: Witnessing
    quorum: QuorumGate


@dataclass(frozen=True, slots=True)
class _KeyParts:
    """What changes keys, by command and by itself."""

    commands: Keys
    scheduler: Scheduler
    use_cases: KeyUseCases


class PartsFactory:
    """Builds the parts of one frontend on an open store."""

    def __init__(
        self, settings: Settings, store: SqlStore, governance: GovernanceCache, certificates: CertificateFiles
    ) -> None:
        self._settings = settings
        self._store = store
        self._governance = governance
        self._certificates = certificates
        # Longer than the watchdog's, so that a hung call is first cut where the token is.
        self._client = TokenClient(
            settings.token_socket,
            deadline_s=settings.token.call_timeout_s + _DEADLINE_MARGIN_S,
            frame_limit=frame_limit(settings.limits),
        )
        self._token = GuardedToken(self._client)
        # What nearly every use case is given first, in this order.
        self._shared = store, self._token, governance, wall_clock
        # Who this frontend is among those that take leases.
        self._holder = str(uuid4())

    def build(self, growth: LogGrowth, accepted_rollback: str) -> Parts:
        """Build all; nothing runs yet. `accepted_rollback` as for `MemoryRules`."""
        store, token, governance, audit = self._store, self._token, self._governance, self._settings.audit
        rules = MemoryRules(audit.origin, audit.remember_interval_s, accepted_rollback)
        memory = TokenMemory(store, token, wall_clock, rules)
        outside, keys = self._outside(), self._keys()
        committer = self._committer(outside.quorum)
        sealing = Sealing(store, governance, wall_clock)
        health = Health(
            token,
            lambda: committer.can_record,
            lambda: missing_pairs(governance.newest),
            lambda: token.refusal() is None and outside.quorum.refusal() is None,
        )
        use_cases = UseCases(
            Signing(committer),
            keys.use_cases,
            Policies(store, governance, wall_clock),
            self._audit(outside, memory),
            LogWatch(store, governance, growth),
            sealing,
        )
        authenticator = Authenticator(self._certificates.is_revoked, wall_clock)
        return Parts(
            client=self._client,
            committer=committer,
            memory=memory,
            scheduler=keys.scheduler,
            checkpoints=self._checkpoints(growth, keys.commands, outside, memory),
            witnessing=outside.witnessing,
            pushing=outside.pushing,
            quorum=outside.quorum,
            sealing=sealing,
            health=health,
            server=ApiServer(self._settings, use_cases, authenticator, self._certificates, health),
            settling=(
                keys.commands.finish_pending,
                lambda: discard_all(*self._shared),
                lambda: compare_with_token(*self._shared),
            ),
        )

    def _committer(self, quorum: QuorumGate) -> Committer:
        limits = self._settings.limits
        return Committer(
            *self._shared,
            CommitterLimits(limits.queue, limits.queue_bytes, limits.request_retention_s),
            gates=(self._token.refusal, quorum.refusal),
        )

    def _keys(self) -> _KeyParts:
        shared, store, governance = self._shared, self._store, self._governance
        keys, rotations = Keys(*shared), Rotations(*shared)
        lifecycle = Lifecycle(*shared, rotations)
        grace = DestructionGrace(self._settings.keys.destruction_grace_s)
        scheduler = Scheduler(store, governance, wall_clock, rotations, lifecycle, holder=self._holder, grace=grace)
        use_cases = KeyUseCases(keys, lifecycle, rotations, Adoption(*shared), Certificates(*shared), governance)
        return _KeyParts(keys, scheduler, use_cases)

    def _outside(self) -> _Outside:
        audit = self._settings.audit
        pushing = Pushing(make_targets(audit.push), wall_clock)
        pairs = [(witness.vkey, witness.url) for witness in audit.witnesses]
        witnessing = Witnessing(self._store, make_witnesses(pairs), (pushing.on_signed,))
        needed = audit.quorum if audit.without_quorum == "stop" else 0
        patience_s = audit.witness_patience_s
        quorum = QuorumGate(self._store, wall_clock, witnessing.learn, quorum=needed, patience_s=patience_s)
        return _Outside(pushing, witnessing, quorum)

    def _checkpoints(self, growth: LogGrowth, keys: Keys, outside: _Outside, memory: TokenMemory) -> Checkpoints:
        audit = self._settings.audit
        return Checkpoints(
            *self._shared,
            LogKey(self._store, self._token, self._governance, keys, audit.origin),
            growth=growth,
            rules=CheckpointRules(audit.origin, audit.checkpoint_records, audit.checkpoint_interval_s),
            holder=self._holder,
            observers=(memory.on_signed, outside.pushing.on_signed, outside.witnessing.on_signed),
            gate=self._token.refusal,
        )

    def _audit(self, outside: _Outside, memory: TokenMemory) -> Audit:
        audit = self._settings.audit
        sources = LogSources(
            audit.quorum,
            audit.without_quorum == "stop",
            outside.witnessing.status,
            outside.pushing.status,
            lambda: memory.remembered_size,
        )
        next_s = audit.checkpoint_interval_s
        return Audit(self._store, self._governance, origin=audit.origin, next_checkpoint_s=next_s, sources=sources)
