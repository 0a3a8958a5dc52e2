from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable
from typing import TypeVar

import grpc
import pytest

from hsmsigner.client import (
    AsyncSignerClient,
    ChecksumMismatch,
    InvalidRequest,
    OutcomeUnknown,
    QuotaExceeded,
    Refused,
    Signature,
    SignItem,
    Unavailable,
)
from hsmsigner.client.multiplexer import Multiplexer, StreamLimits
from hsmsigner.client.values import prepare
from hsmsigner.pb import signing_pb2
from tests.client.fake_server import BREAK, PRINCIPAL, SILENCE, EndStream, FakeServer, Outcome, refused, signed, status

_Result = TypeVar("_Result")

KEY = "keys/settlement-eu"
# A deadline that is meant to pass, on a connection that is there already.
REACHED_S = 1.5
BUSY = status("TOKEN_UNAVAILABLE", grpc.StatusCode.UNAVAILABLE, retry_s=0.01)


def with_client(server: FakeServer, use: Callable[[AsyncSignerClient], Awaitable[_Result]]) -> _Result:
    async def run() -> _Result:
        async with AsyncSignerClient(server.profile) as client:
            return await use(client)

    return asyncio.run(run())


async def sign_until_late(client: AsyncSignerClient, *, unary: bool = False) -> Signature:
    """Sign with a deadline that counts only once hands are shaken: that may take long on a busy machine."""
    await client.health()
    return await client.sign(KEY, b"pay", unary=unary, timeout_s=REACHED_S)


async def sign_many(client: AsyncSignerClient, number: int) -> list[Signature]:
    return await asyncio.gather(*(client.sign(KEY, f"message {index}".encode()) for index in range(number)))


def test_signature_comes_back_with_all_that_the_server_said(server: FakeServer) -> None:
    request_id = str(uuid.uuid4())
    signature = with_client(server, lambda client: client.sign(KEY, b"pay", request_id=request_id))
    assert signature.name == "keys/settlement-eu/versions/1"
    assert signature.signature == b"signed:pay"
    assert signature.request_id == request_id
    assert (signature.algorithm, signature.protection_level) == ("ECDSA_P256_SHA256", "SOFTWARE_TOKEN")
    assert (signature.audit_sequence, signature.policy_revision) == (7, 3)
    assert server.principals == {PRINCIPAL}


def test_thousand_tasks_share_one_stream_and_few_frames(server: FakeServer) -> None:
    signatures = with_client(server, lambda client: sign_many(client, 1000))
    assert [item.signature for item in signatures] == [f"signed:message {index}".encode() for index in range(1000)]
    assert server.streams == 1
    assert sum(server.frames) == 1000
    assert len(server.frames) < 100
    assert max(server.frames) <= 256


def test_each_caller_gets_its_own_answer_when_they_come_out_of_order(server: FakeServer) -> None:
    server.hold = 50
    signatures = with_client(server, lambda client: sign_many(client, 50))
    assert [item.signature for item in signatures] == [f"signed:message {index}".encode() for index in range(50)]


def test_broken_stream_is_opened_again_and_the_rest_sent_under_the_same_ids(server: FakeServer) -> None:
    answered: list[str] = []

    def behave(request: signing_pb2.SignRequest, _: int) -> Outcome:
        if len(answered) in (100, 300):
            answered.append("broken")
            return BREAK
        answered.append(request.request_id)
        return signed(request)

    server.behave = behave
    signatures = with_client(server, lambda client: sign_many(client, 500))
    assert [item.signature for item in signatures] == [f"signed:message {index}".encode() for index in range(500)]
    assert server.streams == 3
    assert len(server.seen) == 500
    assert set(server.seen) == {item.request_id for item in signatures}


def test_server_that_restarts_on_its_port_is_found_again(server: FakeServer) -> None:
    async def use(client: AsyncSignerClient) -> list[Signature]:
        before = await client.sign(KEY, b"before")
        await asyncio.to_thread(server.restart)
        return [before, *await sign_many(client, 20)]

    assert len(with_client(server, use)) == 21
    assert server.streams == 2


def test_call_under_way_while_the_server_restarts_is_answered(server: FakeServer) -> None:
    def behave(request: signing_pb2.SignRequest, times: int) -> Outcome:
        return SILENCE if times == 0 else signed(request)

    async def use(client: AsyncSignerClient) -> Signature:
        call = asyncio.create_task(client.sign(KEY, b"patient"))
        assert await asyncio.to_thread(server.was_asked.wait, 60)
        await asyncio.to_thread(server.restart)
        return await call

    server.behave = behave
    assert with_client(server, use).signature == b"signed:patient"


def test_damaged_signature_is_not_handed_out(server: FakeServer) -> None:
    server.behave = lambda request, _: signed(request, signature_crc32c=1)
    for unary in (False, True):
        with pytest.raises(ChecksumMismatch) as caught:
            with_client(server, lambda client, unary=unary: client.sign(KEY, b"pay", unary=unary))  # type: ignore[misc]
        assert caught.value.reason == "CHECKSUM_MISMATCH"


@pytest.mark.parametrize("changes", [{"name": "keys/other/versions/1"}, {"request_id": "someone-else"}])
def test_answer_to_another_request_is_not_handed_out(server: FakeServer, changes: dict[str, str]) -> None:
    server.behave = lambda request, _: signed(request, **changes)
    for unary in (False, True):
        with pytest.raises(ChecksumMismatch):
            with_client(server, lambda client, unary=unary: client.sign(KEY, b"pay", unary=unary))  # type: ignore[misc]


@pytest.mark.parametrize("unary", [False, True])
def test_passing_fault_is_waited_out_under_the_same_id(server: FakeServer, unary: bool) -> None:  # noqa: FBT001
    server.behave = lambda request, times: refused(request, BUSY) if times < 3 else signed(request)
    signature = with_client(server, lambda client: client.sign(KEY, b"pay", unary=unary))
    assert server.seen == {signature.request_id: 4}


def test_fault_that_outlasts_the_deadline_is_told_as_it_is(server: FakeServer) -> None:
    # A try that is unanswered when the time is up has an unknown outcome: so late none may begin.
    busy = status("TOKEN_UNAVAILABLE", grpc.StatusCode.UNAVAILABLE, retry_s=3.0)

    async def use(client: AsyncSignerClient) -> None:
        await client.health()
        await client.sign(KEY, b"pay", timeout_s=6.0)

    server.behave = lambda request, _: refused(request, busy)
    with pytest.raises(Unavailable) as caught:
        with_client(server, use)
    assert caught.value.reason == "TOKEN_UNAVAILABLE"
    assert list(server.seen.values()) == [2]


@pytest.mark.parametrize("unary", [False, True])
def test_quota_refusal_shows_rule_and_time_and_is_not_retried(server: FakeServer, unary: bool) -> None:  # noqa: FBT001
    metadata = {"rule": "day", "observed": "20001", "limit": "20000"}
    refusal = status("QUOTA_EXCEEDED", grpc.StatusCode.RESOURCE_EXHAUSTED, metadata, retry_s=1.5)
    server.behave = lambda request, _: refused(request, refusal)
    with pytest.raises(QuotaExceeded) as caught:
        with_client(server, lambda client: client.sign(KEY, b"pay", unary=unary))
    error = caught.value
    assert (error.rule, error.observed, error.limit, error.retry_after_s) == ("day", "20001", "20000", 1.5)
    assert error.grpc_code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert list(server.seen.values()) == [1]


def test_server_that_never_answers_leaves_the_outcome_unknown(server: FakeServer) -> None:
    server.behave = lambda _request, _times: SILENCE
    for unary in (False, True):
        with pytest.raises(OutcomeUnknown) as caught:
            with_client(server, lambda client, unary=unary: sign_until_late(client, unary=unary))  # type: ignore[misc]
        assert caught.value.reason == "NO_ANSWER_IN_TIME"


def test_server_that_was_never_reached_is_certain_to_have_done_nothing(server: FakeServer) -> None:
    async def use() -> None:
        async with AsyncSignerClient(server.profile) as client:
            await client.sign(KEY, b"pay", timeout_s=0.5)

    server.__exit__()
    try:
        with pytest.raises(Unavailable) as caught:
            asyncio.run(use())
    finally:
        server.__enter__()
    assert caught.value.reason == "UNREACHABLE"


def test_twin_calls_with_one_id_share_one_request(server: FakeServer) -> None:
    async def use(client: AsyncSignerClient) -> list[Signature]:
        request_id = str(uuid.uuid4())
        labels = [{"a": "1", "b": "2"}, {"b": "2", "a": "1"}]
        return await asyncio.gather(*(client.sign(KEY, b"pay", request_id=request_id, labels=item) for item in labels))

    first, second = with_client(server, use)
    assert first == second
    assert list(server.seen.values()) == [1]


def test_twin_calls_with_one_id_and_two_bodies_are_refused_at_once(server: FakeServer) -> None:
    async def use(client: AsyncSignerClient) -> list[Signature | BaseException]:
        request_id = str(uuid.uuid4())
        calls = (client.sign(KEY, body, request_id=request_id) for body in (b"pay", b"pay more"))
        return await asyncio.gather(*calls, return_exceptions=True)

    good, bad = with_client(server, use)
    assert isinstance(good, Signature)
    assert isinstance(bad, InvalidRequest)
    assert bad.reason == "REQUEST_ID_REUSED"
    assert list(server.seen.values()) == [1]


@pytest.mark.parametrize("is_cancelled", [True, False])
def test_answer_to_a_call_that_was_given_up_is_not_taken_for_that_of_another_body(
    server: FakeServer,
    is_cancelled: bool,  # noqa: FBT001
) -> None:
    server.hold = 2

    async def use(client: AsyncSignerClient) -> None:
        request_id = str(uuid.uuid4())
        await client.health()
        timeout_s = 30.0 if is_cancelled else REACHED_S
        given_up = asyncio.create_task(client.sign(KEY, b"given up", request_id=request_id, timeout_s=timeout_s))
        await asyncio.to_thread(server.was_asked.wait)
        if is_cancelled:
            given_up.cancel()
        await asyncio.wait([given_up])
        with pytest.raises(Unavailable) as early:
            await client.sign(KEY, b"another", request_id=request_id)
        assert early.value.reason == "REQUEST_IN_PROGRESS"

        again, second = await asyncio.gather(
            client.sign(KEY, b"given up", request_id=request_id), client.sign(KEY, b"lets both go")
        )
        assert (again.signature, second.signature) == (b"signed:given up", b"signed:lets both go")
        server.hold = 1
        assert (await client.sign(KEY, b"another", request_id=request_id)).signature == b"signed:another"

    with_client(server, use)


def test_cancelled_call_leaves_its_twin_and_the_others_alone(server: FakeServer) -> None:
    async def use(client: AsyncSignerClient) -> Signature:
        request_id = str(uuid.uuid4())
        first, second = (asyncio.create_task(client.sign(KEY, b"pay", request_id=request_id)) for _ in range(2))
        await asyncio.sleep(0)
        first.cancel()
        return await second

    assert with_client(server, use).signature == b"signed:pay"


def test_large_messages_travel_in_frames_of_their_own(server: FakeServer) -> None:
    async def use(client: AsyncSignerClient) -> list[Signature]:
        return await asyncio.gather(*(client.sign(KEY, bytes([index]) * 900_000) for index in range(8)))

    signatures = with_client(server, use)
    assert [item.signature[-1] for item in signatures] == list(range(8))
    assert max(server.frames) == 1


def test_batch_keeps_order_and_gives_each_item_its_outcome(server: FakeServer) -> None:
    forbidden = status("KEY_NOT_FOUND_OR_FORBIDDEN", grpc.StatusCode.PERMISSION_DENIED)
    server.behave = lambda request, _: refused(request, forbidden) if request.message == b"1" else signed(request)
    items = [SignItem(KEY, str(index).encode()) for index in range(3)]
    outcomes = with_client(server, lambda client: client.batch_sign(items))
    assert [type(outcome) for outcome in outcomes] == [Signature, Refused, Signature]


def test_closed_client_refuses_and_ends_the_calls_under_way(server: FakeServer) -> None:
    async def use(client: AsyncSignerClient) -> BaseException | Signature:
        call = asyncio.create_task(client.sign(KEY, b"pay"))
        assert await asyncio.to_thread(server.was_asked.wait, 60)
        await client.close()
        with pytest.raises(Unavailable):
            await client.sign(KEY, b"pay")
        return (await asyncio.gather(call, return_exceptions=True))[0]

    server.behave = lambda _request, _times: SILENCE
    assert isinstance(with_client(server, use), OutcomeUnknown)


def test_wrong_request_is_found_before_it_is_sent(server: FakeServer) -> None:
    async def use(client: AsyncSignerClient) -> None:
        with pytest.raises(InvalidRequest, match="exactly one"):
            await client.sign(KEY, b"a", digest=b"b")
        with pytest.raises(InvalidRequest, match="JWS_COMPACT"):
            await client.sign(KEY, b"a", output_format="PEM")
        with pytest.raises(InvalidRequest, match="ECDSA_P256_SHA256"):
            await client.create_key("a", "DSA")

    with_client(server, use)
    assert not server.seen


def test_health_is_that_of_the_service_asked_for(server: FakeServer) -> None:
    async def use(client: AsyncSignerClient) -> list[bool]:
        return [await client.health(name) for name in ("", "hsmsigner.v1.SigningService", "no.such.Service")]

    assert with_client(server, use) == [True, False, False]


def test_method_the_server_lacks_is_an_invalid_request(server: FakeServer) -> None:
    with pytest.raises(InvalidRequest) as caught:
        with_client(server, lambda client: client.get_policy())
    assert caught.value.grpc_code is grpc.StatusCode.UNIMPLEMENTED


def test_lists_go_through_all_pages(server: FakeServer) -> None:
    async def use(client: AsyncSignerClient) -> list[str]:
        return [key.name async for key in client.list_public_keys()]

    assert with_client(server, use) == [f"keys/k{number}/versions/1" for number in range(3)]


def test_log_is_read_from_the_record_asked_for_with_the_head_of_its_last_page(server: FakeServer) -> None:
    async def use(client: AsyncSignerClient) -> None:
        records = client.list_audit_records(start_sequence=2, page_size=2)
        assert records.tree_head is None
        assert [record.sequence async for record in records] == [2, 3, 4, 5, 6]
        assert records.tree_head is not None
        assert records.tree_head.size == 106

    with_client(server, use)


def test_damaged_public_key_is_not_handed_out(server: FakeServer) -> None:
    with pytest.raises(ChecksumMismatch):
        with_client(server, lambda client: client.get_public_key(KEY))


def test_stream_that_is_refused_outright_ends_its_calls_with_the_reason(server: FakeServer) -> None:
    server.behave = lambda _request, _times: EndStream(status("UNAUTHENTICATED", grpc.StatusCode.UNAUTHENTICATED))
    with pytest.raises(Refused) as caught:
        with_client(server, lambda client: client.sign(KEY, b"pay"))
    assert caught.value.reason == "UNAUTHENTICATED"
    assert server.streams == 1


def test_stream_refused_after_it_answered_leaves_the_rest_unknown(server: FakeServer) -> None:
    revoked = EndStream(status("UNAUTHENTICATED", grpc.StatusCode.UNAUTHENTICATED))
    server.behave = lambda request, _: signed(request) if request.message == b"first" else revoked

    async def use(client: AsyncSignerClient) -> Signature:
        await client.sign(KEY, b"first")
        return await client.sign(KEY, b"second")

    with pytest.raises(OutcomeUnknown) as caught:
        with_client(server, use)
    assert caught.value.reason == "CONNECTION_LOST"


def test_window_bounds_what_the_server_has_to_hold(server: FakeServer) -> None:
    async def use(client: AsyncSignerClient) -> list[Signature | BaseException]:
        stream = Multiplexer(client._connection.open_stream, StreamLimits(window_items=10))
        loop = asyncio.get_running_loop()
        waiters: list[asyncio.Future[Signature]] = [loop.create_future() for _ in range(50)]
        for waiter in waiters:
            stream.submit(prepare(SignItem(KEY, b"pay")), waiter, time.monotonic() + 60)
        # The server answers nothing: what it has seen is all that the client lets it hold.
        async with asyncio.timeout(60):
            while len(server.seen) < 10:  # noqa: ASYNC110 - the server counts in a thread of its own
                await asyncio.sleep(0.01)
        await stream.close()
        return await asyncio.gather(*waiters, return_exceptions=True)

    server.behave = lambda _request, _times: SILENCE
    results = with_client(server, use)
    assert len(server.seen) == 10
    # Only those that were sent may have been signed.
    assert sum(isinstance(result, OutcomeUnknown) for result in results) == 10
    assert sum(isinstance(result, Unavailable) for result in results) == 40
