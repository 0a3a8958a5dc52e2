"""The client of tlog-witness, against servers that answer anything but what the protocol says."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trustme

from hsmsigner.operations.ports.witness import Cosignature, Fault, FaultKind
from hsmsigner.transparency.cosignature import cosignature
from hsmsigner.transparency.note import SignatureLine
from hsmsigner.witness import exchange as exchange_module
from hsmsigner.witness.exchange import MOST_ANSWER_BYTES, Reply, tls_context
from tests.witness.asking import CHECKPOINT, GOOD, LOG, SIZE, TEXT, TWIN, ask, client, fault_of, signed_by
from tests.witness.twins import (
    always,
    http,
    serving,
)


def forged(name: str = TWIN.name, key_id: bytes = TWIN.key.key_id, signature: bytes | None = None) -> bytes:
    made = read_line_signature() if signature is None else signature
    return SignatureLine(name, key_id, made).text.encode()


def read_line_signature() -> bytes:
    return TWIN.line(CHECKPOINT.note).signature


OTHER_TEXT = TEXT.replace("\n70\n", "\n71\n")
HOSTILE: dict[str, tuple[list[bytes], FaultKind]] = {
    "nothing at all": ([b""], FaultKind.UNREACHABLE),
    "not HTTP": ([b"\x16\x03\x01 hello\r\n\r\n"], FaultKind.BAD_ANSWER),
    "a header without an end": ([b"HTTP/1.1 200 OK\r\nX: "], FaultKind.BAD_ANSWER),
    "broken off": ([b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n" + GOOD], FaultKind.BAD_ANSWER),
    "an impossible chunk": (
        [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\n" + GOOD],
        FaultKind.BAD_ANSWER,
    ),
    "an impossible length": ([b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n"], FaultKind.BAD_ANSWER),
    "a huge header": ([b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * MOST_ANSWER_BYTES], FaultKind.BAD_ANSWER),
    "a huge body": ([http(200, GOOD * 1000)], FaultKind.BAD_ANSWER),
    "too many lines": ([http(200, GOOD * 65)], FaultKind.BAD_ANSWER),
    "no body": ([http(200)], FaultKind.BAD_ANSWER),
    "no text": ([http(200, b"\xff\xfe\n")], FaultKind.BAD_ANSWER),
    "no signature line": ([http(200, b"fine!\n")], FaultKind.BAD_ANSWER),
    "a line without its end": ([http(200, GOOD.strip())], FaultKind.BAD_ANSWER),
    "a line of an unknown key": ([http(200, forged(key_id=b"abcd"))], FaultKind.BAD_ANSWER),
    "a line of an unknown name": ([http(200, forged(name="witness.example/w2"))], FaultKind.BAD_ANSWER),
    "a signature of another key": ([http(200, forged(signature=signed_by("mallory")))], FaultKind.WRONG_SIGNATURE),
    "a signature over another text": (
        [http(200, forged(signature=signed_by(TWIN.name, text=OTHER_TEXT)))],
        FaultKind.WRONG_SIGNATURE,
    ),
    "a signature of another time": (
        [http(200, forged(signature=cosignature(5, read_line_signature()[8:])))],
        FaultKind.WRONG_SIGNATURE,
    ),
    "a short signature": ([http(200, forged(signature=b"\0" * 71))], FaultKind.WRONG_SIGNATURE),
    "a time beyond all calendars": (
        [http(200, forged(signature=signed_by(TWIN.name, 2**63 - 1)))],
        FaultKind.WRONG_SIGNATURE,
    ),
    "a good and a wrong signature": (
        [http(200, GOOD + forged(signature=signed_by("mallory")))],
        FaultKind.WRONG_SIGNATURE,
    ),
    "409 without a size": ([http(409, b"conflict\n")], FaultKind.BAD_ANSWER),
    "409 with a size of the wrong type": ([http(409, b"41\n")], FaultKind.BAD_ANSWER),
    "409 with garbage for a size": ([http(409, b"4 1\n", SIZE)], FaultKind.BAD_ANSWER),
    "409 with a size too long to read": ([http(409, b"9" * 5000, SIZE)], FaultKind.BAD_ANSWER),
    "409 with a negative size": ([http(409, b"-41\n", SIZE)], FaultKind.BAD_ANSWER),
    "409 with leading zeros": ([http(409, b"041\n", SIZE)], FaultKind.BAD_ANSWER),
    "409 with a size above the log's": ([http(409, b"71\n", SIZE)], FaultKind.CONTRADICTED),
    "409 for ever": ([http(409, b"41\n", SIZE)], FaultKind.BAD_ANSWER),
    "409 with a new size each time": ([http(409, b"41\n", SIZE), http(409, b"42\n", SIZE)], FaultKind.BAD_ANSWER),
    "409 and then garbage": ([http(409, b"41\n", SIZE), b"\0\0\0\0"], FaultKind.BAD_ANSWER),
    "409 with the log's own size": ([http(409, b"70\n", SIZE)], FaultKind.CONTRADICTED),
    "400": ([http(400)], FaultKind.REFUSED),
    "403": ([http(403)], FaultKind.REFUSED),
    "404": ([http(404, GOOD)], FaultKind.REFUSED),
    "418": ([http(418)], FaultKind.REFUSED),
    "422": ([http(422)], FaultKind.CONTRADICTED),
    "429": ([http(429)], FaultKind.REFUSED),
    "500": ([http(500, GOOD)], FaultKind.REFUSED),
    "503": ([http(503)], FaultKind.REFUSED),
    "204": ([b"HTTP/1.1 204 No Content\r\n\r\n"], FaultKind.REFUSED),
    "999": ([http(999)], FaultKind.REFUSED),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_no_cosignature_is_a_fault_of_its_kind(name: str) -> None:
    answers, kind = HOSTILE[name]

    fault = fault_of(always(*answers))

    assert fault.kind is kind, fault
    assert fault.message


def test_409_is_followed_once_and_no_more() -> None:
    requests: list[bytes] = []

    async def answer(_m: str, _p: str, _h: dict[str, str], body: bytes, writer: asyncio.StreamWriter) -> None:
        requests.append(body.partition(b"\n")[0])
        writer.write(http(409, b"%d\n" % (40 + len(requests)), SIZE))

    fault_of(answer)

    assert requests == [b"old 0", b"old 41"]


def test_a_redirect_is_not_followed() -> None:
    reached: list[str] = []

    async def elsewhere(_m: str, path: str, _h: dict[str, str], _b: bytes, writer: asyncio.StreamWriter) -> None:
        reached.append(path)
        writer.write(http(200, GOOD))

    async def scenario() -> Cosignature | Fault:
        async with serving(elsewhere) as other:
            redirect = http(307, b"", "text/plain", f"Location: {other}/add-checkpoint")
            async with serving(always(redirect)) as url:
                return await client(url).add_checkpoint(CHECKPOINT, 0, LOG.prove)

    answer = asyncio.run(asyncio.wait_for(scenario(), 60))

    assert isinstance(answer, Fault)
    assert answer.kind is FaultKind.BAD_ANSWER
    assert "redirects are not followed" in answer.message
    assert not reached


async def hang(_m: str, _p: str, _h: dict[str, str], _b: bytes, _writer: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


async def drip(_m: str, _p: str, _h: dict[str, str], _b: bytes, writer: asyncio.StreamWriter) -> None:
    """A byte now and then, without end, so that no single read ever takes long."""
    writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
    while not writer.is_closing():
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(0.02)


@pytest.mark.parametrize("slow", [hang, drip], ids=["silent", "a byte now and then"])
def test_the_time_for_an_answer_is_bounded(slow: Callable[..., Awaitable[None]]) -> None:
    """Neither of these ever ends, so an answer at all, before `ask` gives up, is what is promised."""
    assert fault_of(slow, timeout_s=0.3).kind is FaultKind.TIMED_OUT


def test_an_answer_in_bytes_costs_a_bounded_number_of_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    looks, whole = 0, exchange_module._parse

    def counted(received: bytes, *, is_whole: bool) -> Reply | Fault | None:
        nonlocal looks
        looks += 1
        return whole(received, is_whole=is_whole)

    async def endless(_m: str, _p: str, _h: dict[str, str], _b: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while not writer.is_closing():
            writer.write(b"1\r\nx\r\n")
            await writer.drain()
            await asyncio.sleep(0.001)

    monkeypatch.setattr(exchange_module, "_parse", counted)
    assert fault_of(endless, timeout_s=0.5).kind is FaultKind.TIMED_OUT
    assert looks <= 51


def test_a_stream_without_an_end_is_cut_at_the_bound() -> None:
    sent = 0

    async def flood(_m: str, _p: str, _h: dict[str, str], _b: bytes, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while not writer.is_closing():
            writer.write(b"x" * 10_000)
            sent += 10_000
            await writer.drain()

    assert fault_of(flood).kind is FaultKind.BAD_ANSWER
    assert sent < 50_000_000


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "https://127.0.0.1:1", "http://nowhere.invalid"])
def test_nobody_there_is_a_fault(url: str) -> None:
    answer = asyncio.run(asyncio.wait_for(client(url).add_checkpoint(CHECKPOINT, 0, LOG.prove), 20))

    assert isinstance(answer, Fault)
    assert answer.kind in {FaultKind.UNREACHABLE, FaultKind.TIMED_OUT}


def test_an_address_that_does_not_answer_does_not_hide_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    async def resolve(_host: str, _port: int) -> list[str]:
        return ["127.0.0.2", "127.0.0.1"]

    monkeypatch.setattr(exchange_module, "resolve", resolve)

    assert isinstance(ask(always(http(200, GOOD))), Cosignature)


@pytest.mark.parametrize("is_trusted", [True, False])
def test_tls_counts_only_with_a_certificate_that_is_trusted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *, is_trusted: bool
) -> None:
    authority, server = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(server)
    (authority if is_trusted else trustme.CA()).cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    tls_context.cache_clear()

    async def scenario() -> Cosignature | Fault:
        async with serving(always(http(200, GOOD)), server) as url:
            return await client(url).add_checkpoint(CHECKPOINT, 0, LOG.prove)

    answer = asyncio.run(asyncio.wait_for(scenario(), 60))
    tls_context.cache_clear()

    if is_trusted:
        assert isinstance(answer, Cosignature)
    else:
        assert answer == Fault(FaultKind.UNREACHABLE, "TLS failed: CERTIFICATE_VERIFY_FAILED")
