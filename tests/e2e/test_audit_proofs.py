"""Over gRPC, from a whole appliance with a real token: checkpoints, proofs, pages and the tail of its log.

What it says is held against the RFC's own definitions (tests/naive_tree.py) and `cryptography`, not against our code.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Self

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import error_details_pb2, status_pb2

from hsmsigner.client import SignerClient
from hsmsigner.pb import audit_pb2 as pb
from hsmsigner.pb import audit_pb2_grpc, resources_pb2
from tests import naive_tree
from tests.checkpoints.notes import check_checkpoints, signers
from tests.e2e.appliance import KEY, Appliance, running_appliance, until

SIGNATURES = 600
DETAILS = "grpc-status-details-bin"


@pytest.fixture(scope="module")
def appliance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Appliance]:
    settings = {"checkpoint_interval_s": 0.2, "checkpoint_records": 200}
    with running_appliance(tmp_path_factory.mktemp("audit"), audit=settings) as running:
        with running.client() as client:
            sign(client, SIGNATURES)
        yield running


def sign(client: SignerClient, count: int) -> list[Any]:
    return [client.sign(KEY, b"pay %d" % number) for number in range(count)]


class Auditor:
    """AuditService as somebody sees it who has the generated stubs and nothing of ours."""

    def __init__(self, appliance: Appliance, who: str = "auditor") -> None:
        tls = appliance.state / "tls"
        files = [(tls / name).read_bytes() for name in ("ca.pem", f"{who}-key.pem", f"{who}.pem")]
        options = [("grpc.use_local_subchannel_pool", 1)]
        address = f"127.0.0.1:{appliance.port}"
        self.channel = grpc.secure_channel(address, grpc.ssl_channel_credentials(*files), options)
        self.stub = audit_pb2_grpc.AuditServiceStub(self.channel)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.channel.close()

    def records(self, **fields: Any) -> list[pb.AuditRecord]:
        found: list[pb.AuditRecord] = []
        token = ""
        while True:
            page = self.stub.ListAuditRecords(
                pb.ListAuditRecordsRequest(page_size=1000, page_token=token, **fields), timeout=20
            )
            found += page.records
            token = page.next_page_token
            if not token:
                return found


@pytest.fixture(scope="module")
def auditor(appliance: Appliance) -> Iterator[Auditor]:
    with Auditor(appliance) as auditor:
        # All that was signed is in a checkpoint.
        until(lambda: newest(auditor).checkpoint.size == len(auditor.records()), "a checkpoint of everything")
        yield auditor


def newest(auditor: Auditor) -> pb.GetCheckpointResponse:
    try:
        return auditor.stub.GetCheckpoint(pb.GetCheckpointRequest(), timeout=10)
    except grpc.RpcError as error:
        if reason(error) != "CHECKPOINT_PENDING":
            raise
        return pb.GetCheckpointResponse()


def reason(error: grpc.RpcError) -> str:
    trailing: Any = error.trailing_metadata()
    (packed,) = [value for name, value in trailing if name == DETAILS]
    info = error_details_pb2.ErrorInfo()
    assert status_pb2.Status.FromString(packed).details[0].Unpack(info)
    return str(info.reason)


def test_every_checkpoint_is_signed_by_the_key_in_the_token(appliance: Appliance, auditor: Auditor) -> None:
    answer = newest(auditor)
    listed = auditor.stub.ListCheckpoints(pb.ListCheckpointsRequest(), timeout=10).checkpoints

    sizes = check_checkpoints(appliance.database, list(answer.vkeys))
    assert [one.size for one in listed] == sizes
    assert listed[-1] == answer.checkpoint
    assert signers(answer.checkpoint.note, list(answer.vkeys)) == [answer.vkeys[0]]
    leaves = [naive_tree.leaf(record.record) for record in auditor.records()]
    assert naive_tree.root(leaves[: answer.checkpoint.size]) == answer.checkpoint.root_hash
    with appliance.client("operator") as client:
        assert client.get_key("keys/audit-log").algorithm == resources_pb2.SIGNING_ALGORITHM_ED25519


def test_checkpoints_come_in_pages_and_by_size(auditor: Auditor) -> None:
    whole = list(auditor.stub.ListCheckpoints(pb.ListCheckpointsRequest(), timeout=10).checkpoints)
    token, paged = "", list[pb.Checkpoint]()
    while token or not paged:
        page = auditor.stub.ListCheckpoints(pb.ListCheckpointsRequest(page_size=1, page_token=token), timeout=10)
        paged += page.checkpoints
        token = page.next_page_token
    middle = whole[len(whole) // 2]

    assert paged == whole
    after = auditor.stub.ListCheckpoints(pb.ListCheckpointsRequest(after_size=middle.size), timeout=10)
    assert list(after.checkpoints) == whole[len(whole) // 2 + 1 :]
    for min_size in (middle.size, whole[len(whole) // 2 - 1].size + 1):
        found = auditor.stub.GetCheckpoint(pb.GetCheckpointRequest(min_size=min_size), timeout=10)
        assert found.checkpoint == middle


def test_every_kind_of_inclusion_proof_verifies(appliance: Appliance, auditor: Auditor) -> None:
    checkpoint = newest(auditor).checkpoint
    fields = [json.loads(record.record) for record in auditor.records()][: checkpoint.size]
    completed = [one for one in fields if one["type"] == "sign.completed"]
    asked = [pb.GetInclusionProofRequest(sequence=number) for number in (0, 1, 255, 256, 511, checkpoint.size - 1)]
    asked += [pb.GetInclusionProofRequest(request_id=one["request_id"]) for one in completed[::150]]
    digests = [bytes.fromhex(one["signature_sha256"]) for one in completed[::150]]
    asked += [pb.GetInclusionProofRequest(signature_sha256=digest) for digest in digests]

    for request in asked:
        proof = auditor.stub.GetInclusionProof(request, timeout=10)
        leaf = naive_tree.leaf(proof.record.record)
        at = proof.record.sequence, proof.checkpoint.size
        assert naive_tree.is_included(leaf, *at, proof.hashes, proof.checkpoint.root_hash)
        assert not naive_tree.is_included(leaf, at[0] ^ 1, at[1], proof.hashes, proof.checkpoint.root_hash)
        record = json.loads(proof.record.record)
        assert record["sequence"] == proof.record.sequence
        if request.WhichOneof("record") != "sequence":
            assert record["type"] == "sign.completed"
    with appliance.client() as client:
        signed = client.sign(KEY, b"one more")
    digest = hashlib.sha256(signed.signature).digest()
    until(lambda: newest(auditor).checkpoint.size > signed.audit_sequence, "a checkpoint of the signature")
    proof = auditor.stub.GetInclusionProof(pb.GetInclusionProofRequest(signature_sha256=digest), timeout=10)
    assert proof.record.sequence == signed.audit_sequence


def test_a_record_can_be_proven_in_any_later_checkpoint(auditor: Auditor) -> None:
    listed = auditor.stub.ListCheckpoints(pb.ListCheckpointsRequest(), timeout=10).checkpoints
    for checkpoint in listed:
        request = pb.GetInclusionProofRequest(sequence=0, tree_size=checkpoint.size)
        proof = auditor.stub.GetInclusionProof(request, timeout=10)
        leaf = naive_tree.leaf(proof.record.record)
        assert proof.checkpoint == checkpoint
        assert naive_tree.is_included(leaf, 0, checkpoint.size, proof.hashes, checkpoint.root_hash)


def test_every_two_checkpoints_are_consistent(auditor: Auditor) -> None:
    listed = auditor.stub.ListCheckpoints(pb.ListCheckpointsRequest(), timeout=10).checkpoints
    for old in listed:
        for new in listed:
            if old.size > new.size:
                continue
            request = pb.GetConsistencyProofRequest(old_size=old.size, new_size=new.size)
            proof = auditor.stub.GetConsistencyProof(request, timeout=10)
            sizes = proof.old_size, proof.new_size
            assert sizes == (old.size, new.size)
            assert naive_tree.is_consistent(*sizes, proof.hashes, old.root_hash, new.root_hash)
    nothing = auditor.stub.GetConsistencyProof(pb.GetConsistencyProofRequest(), timeout=10)
    assert (nothing.old_size, list(nothing.hashes)) == (0, [])
    assert nothing.new_size >= listed[-1].size


def test_tiles_are_the_hashes_of_the_records(auditor: Auditor) -> None:
    leaves = [naive_tree.leaf(record.record) for record in auditor.records()]
    for number in range(len(leaves) // 256 + 1):
        tile = auditor.stub.GetTreeTile(pb.GetTreeTileRequest(number=number), timeout=10)
        expected = b"".join(leaves[256 * number : 256 * (number + 1)])
        assert tile.hashes[: len(expected)] == expected
        assert tile.tree_size >= len(leaves)
    above = auditor.stub.GetTreeTile(pb.GetTreeTileRequest(level=1), timeout=10)
    roots = [naive_tree.root(leaves[start : start + 256]) for start in range(0, len(leaves) - 255, 256)]
    assert above.hashes == b"".join(roots)


def test_a_filter_finds_what_a_look_at_every_record_finds(auditor: Auditor) -> None:
    everything = [json.loads(record.record) for record in auditor.records()]

    def found(**fields: Any) -> list[int]:
        return [record.sequence for record in auditor.records(filter=pb.AuditFilter(**fields))]

    def expected(fits: Callable[[dict[str, Any]], bool]) -> list[int]:
        return [one["sequence"] for one in everything if fits(one)]

    assert found(types=["sign.completed"]) == expected(lambda one: one["type"] == "sign.completed")
    assert found(types=["key."]) == expected(lambda one: one["type"].startswith("key."))
    assert found(key=KEY) == expected(lambda one: one.get("key", "").startswith(KEY))
    assert found(principal="appliance") == expected(lambda one: one.get("principal") == "appliance")
    announced = expected(lambda one: one["type"] in ("sign.authorized", "key.requested"))
    assert found(outcome=pb.AUDIT_OUTCOME_ANNOUNCED) == announced
    middle = Timestamp()
    middle.FromJsonString(everything[500]["time"])
    later = expected(lambda one: one["time"] >= everything[500]["time"])
    assert found(start_time=middle) == later
    assert found(end_time=middle) == [one["sequence"] for one in everything if one["sequence"] not in set(later)]


def test_a_tail_has_every_record_soon_and_can_be_continued(appliance: Appliance, auditor: Auditor) -> None:
    number_of_records = 5
    started = pb.WatchAuditRecordsRequest(start_sequence=-1, filter=pb.AuditFilter(types=["sign.completed"]))
    stream = auditor.stub.WatchAuditRecords(started, timeout=60)
    came: list[tuple[int, float]] = []
    read_on = [0]

    def read() -> None:
        for answer in stream:
            came.extend((record.sequence, time.monotonic()) for record in answer.records)
            read_on[0] = answer.next_sequence
            if len(came) == number_of_records:
                return

    reader = threading.Thread(target=read)
    reader.start()
    # The first answer says where the reading is: from there on nothing is missed.
    until(lambda: read_on[0] > 0, "the stream to be open")
    sent = []
    with appliance.client() as client:
        for number in range(number_of_records):
            signed = client.sign(KEY, b"tail %d" % number)
            sent.append((signed.audit_sequence, time.monotonic()))
            until(lambda: len(came) == len(sent), "the record to come")
    reader.join(20)
    stream.cancel()

    assert [sequence for sequence, _ in came] == [sequence for sequence, _ in sent]
    # Woken up by the commit, not found by the look that comes a second after the last record: that would make each of
    # them late, a busy machine only some.
    assert min(got - had for (_, got), (_, had) in zip(came, sent, strict=True)) < 0.5
    again = auditor.stub.WatchAuditRecords(pb.WatchAuditRecordsRequest(start_sequence=sent[1][0]), timeout=60)
    sequences: list[int] = []
    for answer in again:
        sequences += [record.sequence for record in answer.records]
        if sequences[-1:] >= [sent[2][0]]:
            break
    again.cancel()
    assert sequences == list(range(sent[1][0], sequences[-1] + 1))


def test_a_reader_that_does_not_read_harms_nobody(appliance: Appliance, auditor: Auditor) -> None:
    stuck = [
        auditor.stub.WatchAuditRecords(pb.WatchAuditRecordsRequest(start_sequence=0), timeout=60) for _ in range(8)
    ]
    for stream in stuck:
        next(stream)
    with pytest.raises(grpc.RpcError) as refused:
        next(auditor.stub.WatchAuditRecords(pb.WatchAuditRecordsRequest(), timeout=10))
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert reason(refused.value) == "TOO_MANY_WATCHERS"
    with Auditor(appliance, "operator") as operator, appliance.client() as client:
        # Another principal has watchers of its own, and signing goes on.
        next(operator.stub.WatchAuditRecords(pb.WatchAuditRecordsRequest(), timeout=10))
        assert sign(client, 20)
    for stream in stuck:
        stream.cancel()

    def has_room() -> bool:
        try:
            next(auditor.stub.WatchAuditRecords(pb.WatchAuditRecordsRequest(), timeout=10))
        except grpc.RpcError:
            return False
        return True

    until(has_room, "the places of those who left to be free")


def test_status_says_how_the_log_stands(appliance: Appliance, auditor: Auditor) -> None:
    status = auditor.stub.GetLogStatus(pb.GetLogStatusRequest(), timeout=10)

    assert status.newest_checkpoint.note.startswith(f"{status.origin}\n{status.newest_checkpoint.size}\n")
    assert status.tree_head.size >= status.newest_checkpoint.size > 0
    assert (status.quorum, status.is_fail_closed, status.first_sequence) == (0, False, 0)
    assert not status.HasField("newest_witnessed")
    assert f"origin: {status.origin}" in (appliance.state / "hsmsigner.yaml").read_text().replace('"', "")


BAD: list[tuple[str, Any, str]] = [
    ("ListAuditRecords", pb.ListAuditRecordsRequest(page_size=-1), "page_size"),
    ("ListAuditRecords", pb.ListAuditRecordsRequest(page_size=1001), "page_size"),
    ("ListAuditRecords", pb.ListAuditRecordsRequest(page_token="x"), "page_token"),
    ("ListAuditRecords", pb.ListAuditRecordsRequest(page_token="9" * 40), "page_token"),
    ("ListAuditRecords", pb.ListAuditRecordsRequest(filter=pb.AuditFilter(key="keys/")), "filter.key"),
    ("ListAuditRecords", pb.ListAuditRecordsRequest(filter=pb.AuditFilter(key="keys/a/versions/0")), "filter.key"),
    ("ListAuditRecords", pb.ListAuditRecordsRequest(filter=pb.AuditFilter(principal="p" * 513)), "filter.principal"),
    ("ListAuditRecords", pb.ListAuditRecordsRequest(filter=pb.AuditFilter(types=["sign."] * 33)), "filter.types"),
    ("ListAuditRecords", pb.ListAuditRecordsRequest(filter=pb.AuditFilter(types=["%"])), "filter.types[0]"),
    ("ListAuditRecords", pb.ListAuditRecordsRequest(filter=pb.AuditFilter(types=["a.b", ""])), "filter.types[1]"),
    (
        "ListAuditRecords",
        pb.ListAuditRecordsRequest(filter=pb.AuditFilter(outcome=99)),  # type: ignore[arg-type]
        "filter.outcome",
    ),
    (
        "ListAuditRecords",
        pb.ListAuditRecordsRequest(filter=pb.AuditFilter(start_time=Timestamp(seconds=-1))),
        "filter.start_time",
    ),
    (
        "ListAuditRecords",
        pb.ListAuditRecordsRequest(filter=pb.AuditFilter(end_time=Timestamp(nanos=10**9))),
        "filter.end_time",
    ),
    (
        "ListAuditRecords",
        pb.ListAuditRecordsRequest(
            filter=pb.AuditFilter(start_time=Timestamp(seconds=2), end_time=Timestamp(seconds=1))
        ),
        "filter.end_time",
    ),
    ("WatchAuditRecords", pb.WatchAuditRecordsRequest(start_sequence=-2), "start_sequence"),
    ("WatchAuditRecords", pb.WatchAuditRecordsRequest(start_sequence=2**63 - 1), "start_sequence"),
    ("WatchAuditRecords", pb.WatchAuditRecordsRequest(filter=pb.AuditFilter(types=["sign"])), "filter.types[0]"),
    ("GetCheckpoint", pb.GetCheckpointRequest(min_size=2**64 - 1), "min_size"),
    ("ListCheckpoints", pb.ListCheckpointsRequest(page_size=-5), "page_size"),
    ("ListCheckpoints", pb.ListCheckpointsRequest(page_token="-1"), "page_token"),
    ("ListCheckpoints", pb.ListCheckpointsRequest(after_size=2**63), "after_size"),
    ("GetInclusionProof", pb.GetInclusionProofRequest(), "record"),
    ("GetInclusionProof", pb.GetInclusionProofRequest(sequence=2**64 - 1), "sequence"),
    ("GetInclusionProof", pb.GetInclusionProofRequest(request_id="x"), "request_id"),
    ("GetInclusionProof", pb.GetInclusionProofRequest(signature_sha256=b"\0" * 31), "signature_sha256"),
    ("GetInclusionProof", pb.GetInclusionProofRequest(sequence=1, tree_size=2**63), "tree_size"),
    ("GetConsistencyProof", pb.GetConsistencyProofRequest(old_size=2, new_size=1), "old_size"),
    ("GetConsistencyProof", pb.GetConsistencyProofRequest(old_size=2**64 - 1), "old_size"),
    ("GetConsistencyProof", pb.GetConsistencyProofRequest(new_size=2**64 - 1), "new_size"),
    ("GetTreeTile", pb.GetTreeTileRequest(level=8), "level"),
    ("GetTreeTile", pb.GetTreeTileRequest(level=2**32 - 1), "level"),
    ("GetTreeTile", pb.GetTreeTileRequest(number=2**64 - 1), "number"),
]


def call(auditor: Auditor, method: str, request: Any) -> Any:
    answer = getattr(auditor.stub, method)(request, timeout=10)
    return next(answer) if method.startswith("Watch") else answer


@pytest.mark.parametrize(("method", "request_", "field"), BAD, ids=lambda value: str(value).replace("\n", " ")[:60])
def test_a_wrong_field_is_named(auditor: Auditor, method: str, request_: Any, field: str) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        call(auditor, method, request_)

    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert reason(refused.value) == "INVALID_FIELD"
    assert str(refused.value.details()).startswith(f"{field}: ")


MISSING: list[tuple[str, Any, str]] = [
    ("WatchAuditRecords", pb.WatchAuditRecordsRequest(start_sequence=10**9), "NOT_IN_LOG"),
    ("GetCheckpoint", pb.GetCheckpointRequest(min_size=10**9), "CHECKPOINT_PENDING"),
    ("GetInclusionProof", pb.GetInclusionProofRequest(sequence=10**9), "NOT_IN_LOG"),
    ("GetInclusionProof", pb.GetInclusionProofRequest(request_id="6b98ec69-0f27-49d8-b54c-68d77ad27b23"), "NOT_IN_LOG"),
    ("GetInclusionProof", pb.GetInclusionProofRequest(signature_sha256=b"\0" * 32), "NOT_IN_LOG"),
    ("GetInclusionProof", pb.GetInclusionProofRequest(sequence=0, tree_size=1), "NOT_IN_LOG"),
    ("GetInclusionProof", pb.GetInclusionProofRequest(sequence=0, tree_size=2**62), "NOT_IN_LOG"),
    ("GetConsistencyProof", pb.GetConsistencyProofRequest(old_size=1, new_size=10**9), "NOT_IN_LOG"),
    ("GetConsistencyProof", pb.GetConsistencyProofRequest(old_size=10**9), "CHECKPOINT_PENDING"),
    ("GetTreeTile", pb.GetTreeTileRequest(number=10**9), "NOT_IN_LOG"),
    ("GetTreeTile", pb.GetTreeTileRequest(level=7), "NOT_IN_LOG"),
]


@pytest.mark.parametrize(("method", "request_", "expected"), MISSING, ids=lambda value: str(value)[:60])
def test_what_is_not_there_is_said_so(auditor: Auditor, method: str, request_: Any, expected: str) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        call(auditor, method, request_)

    assert reason(refused.value) == expected


EVERY: list[tuple[str, Any]] = [
    ("ListAuditRecords", pb.ListAuditRecordsRequest()),
    ("WatchAuditRecords", pb.WatchAuditRecordsRequest()),
    ("GetCheckpoint", pb.GetCheckpointRequest()),
    ("ListCheckpoints", pb.ListCheckpointsRequest()),
    ("GetInclusionProof", pb.GetInclusionProofRequest(sequence=0)),
    ("GetConsistencyProof", pb.GetConsistencyProofRequest()),
    ("GetTreeTile", pb.GetTreeTileRequest()),
    ("GetLogStatus", pb.GetLogStatusRequest()),
]


@pytest.mark.parametrize(("method", "request_"), EVERY, ids=lambda value: str(value)[:40])
@pytest.mark.parametrize("who", ["engine", "stranger"])
def test_nobody_reads_without_the_right(appliance: Appliance, who: str, method: str, request_: Any) -> None:
    with Auditor(appliance, who) as other, pytest.raises(grpc.RpcError) as refused:
        call(other, method, request_)

    assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED
    assert reason(refused.value) == "FORBIDDEN"
