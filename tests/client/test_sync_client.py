from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from hsmsigner.client import OutcomeUnknown, SignerClient, SignItem, Unavailable
from tests.client.fake_server import BREAK, SILENCE, FakeServer, signed

KEY = "keys/settlement-eu"


def test_many_threads_share_one_stream(server: FakeServer) -> None:
    def sign_some(client: SignerClient, thread: int) -> list[bytes]:
        return [client.sign(KEY, f"{thread}-{index}".encode()).signature for index in range(50)]

    with SignerClient(server.profile) as client, ThreadPoolExecutor(32) as threads:
        results = list(threads.map(lambda thread: sign_some(client, thread), range(32)))
    assert results == [[f"signed:{thread}-{index}".encode() for index in range(50)] for thread in range(32)]
    assert server.streams == 1
    assert sum(server.frames) == 1600


def test_threads_do_not_notice_a_broken_stream(server: FakeServer) -> None:
    server.behave = lambda request, times: BREAK if times == 0 and request.message == b"7" else signed(request)
    with SignerClient(server.profile) as client, ThreadPoolExecutor(8) as threads:
        results = list(threads.map(lambda index: client.sign(KEY, str(index).encode()).signature, range(20)))
    assert results == [f"signed:{index}".encode() for index in range(20)]


def test_deadline_holds_in_a_thread(server: FakeServer) -> None:
    server.behave = lambda _request, _times: SILENCE
    with SignerClient(server.profile) as client:
        # Hands are shaken before the time counts.
        client.health()
        with pytest.raises(OutcomeUnknown):
            client.sign(KEY, b"pay", timeout_s=1.5)


def test_plain_calls_work_too(server: FakeServer) -> None:
    with SignerClient(server.profile) as client:
        assert client.sign(KEY, b"pay", unary=True).signature == b"signed:pay"
        assert len(client.batch_sign([SignItem(KEY, b"a"), SignItem(KEY, b"b")])) == 2
        assert client.health()


def test_closed_client_refuses(server: FakeServer) -> None:
    client = SignerClient(server.profile)
    client.close()
    client.close()
    with pytest.raises(Unavailable, match="closed"):
        client.sign(KEY, b"pay")
    with pytest.raises(Unavailable, match="closed"):
        client.health()


def test_lists_are_iterators(server: FakeServer) -> None:
    with SignerClient(server.profile) as client:
        assert [key.name for key in client.list_public_keys()] == [f"keys/k{number}/versions/1" for number in range(3)]
        records = client.list_audit_records(page_size=3)
        assert [record.sequence for record in records] == list(range(7))
        assert records.tree_head is not None
