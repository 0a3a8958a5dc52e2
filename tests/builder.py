"""One builder for a whole signer without its edge, and the one checker of what must hold after every scenario."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from hsmsigner.domain.algorithm import algorithm_named
from hsmsigner.domain.formats import OutputFormat
from hsmsigner.domain.key import Key, KeyName, KeyVersion, VersionName, parse_name
from hsmsigner.domain.lifecycle import Verb
from hsmsigner.domain.policy import InputKind
from hsmsigner.domain.principal import Principal
from hsmsigner.domain.rotation_policy import RotationPolicy
from hsmsigner.domain.signing import RequestId, parse_request_id, signing_request
from hsmsigner.operations.adoption import Adoption
from hsmsigner.operations.audit import Audit
from hsmsigner.operations.checkpoints import CheckpointRules, Checkpoints
from hsmsigner.operations.committer import Committer, CommitterLimits, Gate
from hsmsigner.operations.denials import report_denials
from hsmsigner.operations.governance import GovernanceCache
from hsmsigner.operations.grace import DestructionGrace
from hsmsigner.operations.growth import LogGrowth
from hsmsigner.operations.jobs import Signed
from hsmsigner.operations.key_changes import Cause, WantedRotation
from hsmsigner.operations.keys import Keys
from hsmsigner.operations.lifecycle import Lifecycle
from hsmsigner.operations.log_key import LogKey
from hsmsigner.operations.log_watch import LogWatch
from hsmsigner.operations.policy import Policies, publish_first
from hsmsigner.operations.ports import CheckpointObserver
from hsmsigner.operations.recovery import interrupt_dangling
from hsmsigner.operations.rotation import Rotations
from hsmsigner.operations.scheduler import Scheduler
from hsmsigner.operations.sign import Asked, Signing
from hsmsigner.store.unit_of_work import SqlStore
from hsmsigner.transparency.merkle import RightEdge, leaf_hash
from hsmsigner.verifier.meaning import Meaning
from tests.fakes import FakeClock, FakeToken

ENGINE = Principal("spiffe://test/settlement/engine-1")
OTHER_ENGINE = Principal("spiffe://test/settlement/engine-2")
OPERATOR = Principal("spiffe://test/ops/operator")
STRANGER = Principal("spiffe://test/unknown/stranger")

POLICY = """
version: 1
groups: {engines: ["spiffe://test/settlement/*"], ops: ["spiffe://test/ops/*"]}
grants:
  - {principals: [group:engines], keys: ["keys/settlement-*"], rights: [sign, sign_digest, get_public_key]}
  - principals: [group:ops]
    keys: ["**"]
    rights: [create_key, rotate, manage_key, read_audit, publish_policy, get_public_key]
keys:
  - match: keys/settlement-*
    inputs: [message, digest]
    quotas:
      - {id: burst, count: 5, per: 10s, by: [principal]}
      - {id: day, count: 20, per: 1d}
"""

# An interval of nothing: a checkpoint is due whenever the log grew.
_WHENEVER = CheckpointRules("test.example/log", 10_000, 0.0)


@dataclass
class Signer:
    """A whole signer on one store; `restart` makes another on the same store, as after kill -9."""

    folder: Path
    policy: str = POLICY
    clock: FakeClock = field(default_factory=FakeClock)
    token: FakeToken = field(default_factory=FakeToken)
    limits: CommitterLimits = field(default_factory=lambda: CommitterLimits(4096, 64 * 2**20, 86_400))
    store_class: Callable[..., SqlStore] = SqlStore
    checkpoint_rules: CheckpointRules = _WHENEVER
    # Asked from the next request on, whenever one is added.
    gates: list[Gate] = field(default_factory=list)

    @property
    def database(self) -> Path:
        return self.folder / "store.sqlite3"

    async def start(self) -> None:
        self.growth = LogGrowth()
        self.store = self.store_class(f"sqlite:///{self.database}", self.growth.announce)
        self.governance = GovernanceCache()
        await self.store.reopen()
        await publish_first(self.store, self.clock, self.policy.encode())
        self.interrupted = await interrupt_dangling(self.store, self.clock)
        await self.governance.reload(self.store)
        await report_denials(self.store, self.governance, self.clock)
        parts = self.store, self.token, self.governance, self.clock, self.limits
        self.committer = Committer(*parts, gates=self.gates)
        self.signing = Signing(self.committer)
        self.keys = Keys(self.store, self.token, self.governance, self.clock)
        self.rotations = Rotations(self.store, self.token, self.governance, self.clock)
        self.lifecycle = Lifecycle(self.store, self.token, self.governance, self.clock, self.rotations)
        self.adoption = Adoption(self.store, self.token, self.governance, self.clock)
        self.scheduler = self.make_scheduler(str(uuid.uuid4()))
        self.policies = Policies(self.store, self.governance, self.clock)
        self.audit = Audit(self.store, self.governance, origin=self.checkpoint_rules.origin, next_checkpoint_s=1.0)
        self.log_watch = LogWatch(self.store, self.governance, self.growth)
        self.checkpoints = self.make_checkpoints(str(uuid.uuid4()))
        self._loop = asyncio.create_task(self.committer.run())

    async def stop(self) -> None:
        self.committer.stop()
        await self._loop
        await self.store.close()

    async def die(self) -> None:
        """As kill -9 looks to the store: nothing more is written, nothing is tidied up."""
        self._loop.cancel()
        await asyncio.gather(self._loop, return_exceptions=True)
        await self.store.close()

    def make_scheduler(self, holder: str, grace: DestructionGrace | None = None) -> Scheduler:
        parts = self.store, self.governance, self.clock, self.rotations, self.lifecycle
        return Scheduler(*parts, holder=holder, grace=grace or DestructionGrace(0))

    def make_checkpoints(self, holder: str, observers: Sequence[CheckpointObserver] = ()) -> Checkpoints:
        log_key = LogKey(self.store, self.token, self.governance, self.keys, self.checkpoint_rules.origin)
        parts = self.store, self.token, self.governance, self.clock, log_key
        rules = self.checkpoint_rules
        return Checkpoints(*parts, growth=self.growth, rules=rules, holder=holder, observers=observers)

    def key(self, key_id: str = "settlement-eu") -> Key:
        """The key as this frontend sees it now."""
        return self.governance.newest.keys[key_id]

    async def rotate(self, reason: str = "test", *, principal: Principal = OPERATOR, **wanted: object) -> Key:
        request = WantedRotation(**wanted)  # type: ignore[arg-type]
        return await self.rotations.rotate(
            principal, KeyName("settlement-eu"), request, Cause(principal, reason, fresh_id())
        )

    async def change(self, verb: Verb, number: int, **options: object) -> KeyVersion:
        name, cause = VersionName(KeyName("settlement-eu"), number), Cause(OPERATOR, "test")
        return await self.lifecycle.change(verb, OPERATOR, name, cause, **options)  # type: ignore[arg-type]

    async def set_policy(self, **policy: int) -> Key:
        cause = Cause(OPERATOR, "test")
        return await self.lifecycle.set_rotation_policy(
            OPERATOR, KeyName("settlement-eu"), RotationPolicy(**policy), cause
        )

    async def look_after(self) -> None:
        """One round of the scheduler, to its end."""
        await self.scheduler.round()
        await self.scheduler.settle()

    async def create_key(self, key_id: str = "settlement-eu", algorithm: str = "ECDSA_P256_SHA256") -> Key:
        return await self.keys.create(OPERATOR, KeyName(key_id), algorithm_named(algorithm), fresh_id())

    async def sign(self, message: bytes = b"pay", **options: object) -> Signed:
        return await self.signing.sign(asked(message, **options), None)  # type: ignore[arg-type]


@asynccontextmanager
async def make_signer(folder: Path, *, has_whole_log: bool = True, **options: object) -> AsyncIterator[Signer]:
    """A running signer with no key yet; checks the invariants when it ends, unless its log was sealed."""
    signer = Signer(folder, **options)  # type: ignore[arg-type]
    await signer.start()
    try:
        yield signer
    finally:
        await signer.stop()
    if has_whole_log:
        check_invariants(signer.database)


def fresh_id() -> RequestId:
    return parse_request_id(str(uuid.uuid4()))


def asked(
    message: bytes = b"pay",
    *,
    principal: Principal = ENGINE,
    request_id: RequestId | None = None,
    name: str = "keys/settlement-eu",
    kind: InputKind = InputKind.MESSAGE,
    output_format: OutputFormat = OutputFormat.RAW,
    labels: dict[str, str] | None = None,
    validate_only: bool = False,
) -> Asked:
    request = signing_request(
        principal,
        request_id or fresh_id(),
        parse_name(name),
        kind=kind,
        body=message,
        output_format=output_format,
        labels=labels or {},
    )
    return Asked(request, validate_only)


def read_log(database: Path) -> list[dict[str, object]]:
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        rows = connection.execute("SELECT record FROM audit_records ORDER BY sequence").fetchall()
    return [json.loads(record) for (record,) in rows]


def record_types(database: Path) -> list[str]:
    return [str(record["type"]) for record in read_log(database)]


def usage_total(database: Path, quota: str) -> int:
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        rows = connection.execute("SELECT counter, buckets FROM quota_usage").fetchall()
    return sum(count for counter, buckets in rows if f"|{quota}|" in counter for _, count in json.loads(buckets))


def check_invariants(database: Path) -> None:
    """Chain, tree and checkpoints intact, every signature authorized first and ended once, counters as debits say.

    The offline verifier, which shares no code with the appliance, finds nothing wrong in what the log tells either.
    """
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        records = connection.execute("SELECT sequence, record FROM audit_records ORDER BY sequence").fetchall()
        (size, edge_bytes) = connection.execute("SELECT log_size, log_edge FROM appliance").fetchone()
        requests = connection.execute("SELECT sequence, state, signature FROM sign_requests").fetchall()
        usage = dict(connection.execute("SELECT counter, buckets FROM quota_usage").fetchall())
        checkpoints = dict(connection.execute("SELECT size, root FROM checkpoints").fetchall())
    edge, previous, authorized, ended = RightEdge(), bytes(32), set(), Counter[int]()
    last_time = ""
    meaning = Meaning()
    debits: dict[int, list[str]] = {}
    debited, first_debit = Counter[str](), dict[str, str]()
    for index, (sequence, record) in enumerate(records):
        fields = json.loads(record)
        assert sequence == fields["sequence"] == index
        assert fields["previous_hash"] == previous.hex()
        assert fields["time"] >= last_time
        last_time, previous = fields["time"], leaf_hash(record)
        edge = edge.append(previous)
        meaning.judge(sequence, fields)
        assert checkpoints.pop(edge.size, edge.root()) == edge.root()
        if fields["type"] == "sign.authorized":
            authorized.add(sequence)
            debits[sequence] = [debit["counter"] for debit in fields["debits"]]
            debited.update(debits[sequence])
            for counter in debits[sequence]:
                first_debit.setdefault(counter, fields["time"])
        elif fields.get("debit_returned"):
            debited.subtract(debits[fields["authorized"]])
        if "authorized" in fields:
            assert fields["authorized"] < sequence
            ended[fields["authorized"]] += 1
    assert not meaning.faults, [str(fault) for fault in meaning.faults]
    for counter, count in debited.items():
        counted = sum(number for _, number in json.loads(usage[counter]))
        # Buckets leave a counter with time; while none can have left, it holds exactly what the log says.
        period_s = int(counter.split("|")[2]) / 1_000_000
        span = datetime.fromisoformat(last_time) - datetime.fromisoformat(first_debit[counter])
        assert counted == count if span.total_seconds() < period_s else counted <= count
    assert not checkpoints, "there are checkpoints of records that are not there"
    assert (size, edge_bytes) == (edge.size, edge.to_bytes())
    assert all(count == 1 for count in ended.values()), "an authorization ended twice"
    for sequence, state, signature in requests:
        assert sequence in authorized
        assert bool(signature) == (state == "COMPLETED")
