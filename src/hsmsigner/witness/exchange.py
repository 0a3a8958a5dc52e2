"""One HTTP request and its answer, bounded in time and size, without threads and without following redirects."""

from __future__ import annotations

import asyncio
import base64
import http.client
import io
import socket
import ssl
from dataclasses import dataclass, field
from functools import lru_cache
from urllib.parse import SplitResult, unquote, urlsplit

from hsmsigner.operations.ports.witness import Fault, FaultKind

# All that is ever answered are a few signature lines or a number.
MOST_ANSWER_BYTES = 64 * 1024
_CHUNK = 16 * 1024
# Between two looks at an answer that is not whole yet: who sends it in bytes must not keep the event loop busy.
_BREATH_S = 0.01
_AGENT = "hsmsigner"
_CONNECT_S = 3.0
_MOST_ADDRESSES = 3


@dataclass(frozen=True, slots=True)
class Reply:
    """What a server answered; whatever its status."""

    status: int
    content_type: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where requests go: the part of a URL before the path of each. Credentials stay out of `repr` and of `shown`."""

    scheme: str
    host: str
    port: int
    path: str
    query: str = field(repr=False)
    authorization: str = field(repr=False)

    @classmethod
    def parse(cls, url: str) -> Endpoint:
        """Read an http or https URL; user and password in it become HTTP basic authentication.

        Raises:
            ValueError: no such URL. The text does not repeat it.
        """
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname or parts.fragment or not _is_plain(url):
            raise ValueError("must be an http or https URL with a host, in printable ASCII, without a fragment")
        try:
            port = parts.port or (443 if parts.scheme == "https" else 80)
        except ValueError as error:
            raise ValueError("its port is not a number up to 65535") from error
        return cls(parts.scheme, parts.hostname, port, parts.path.rstrip("/"), parts.query, _authorization(parts))

    @property
    def shown(self) -> str:
        """The URL without what may be a secret."""
        return f"{self.scheme}://{self._authority}{self.path}"

    @property
    def _authority(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        is_usual = self.port == (443 if self.scheme == "https" else 80)
        return host if is_usual else f"{host}:{self.port}"

    def head(self, method: str, suffix: str, content_type: str, length: int) -> bytes:
        """Request line and headers for `path` + `suffix`."""
        target = self.path + suffix + (f"?{self.query}" if self.query else "")
        lines = [
            f"{method} {target} HTTP/1.1",
            f"Host: {self._authority}",
            f"User-Agent: {_AGENT}",
            f"Content-Type: {content_type}",
            f"Content-Length: {length}",
            "Connection: close",
        ]
        if self.authorization:
            lines.append(f"Authorization: {self.authorization}")
        return ("\r\n".join(lines) + "\r\n\r\n").encode("ascii")


async def exchange(
    endpoint: Endpoint, method: str, suffix: str, body: bytes, *, content_type: str, timeout_s: float
) -> Reply | Fault:
    """Send one request and read its answer; everything together, the name's resolution included, in `timeout_s`."""
    request = endpoint.head(method, suffix, content_type, len(body)) + body
    try:
        async with asyncio.timeout(timeout_s):
            return await _exchange(endpoint, request)
    except TimeoutError:
        return Fault(FaultKind.TIMED_OUT, f"no whole answer within {timeout_s:g} s")
    except ssl.SSLError as error:
        return Fault(FaultKind.UNREACHABLE, f"TLS failed: {error.reason or 'no reason given'}")
    except (OSError, UnicodeError) as error:
        # UnicodeError: a host name that IDNA cannot encode.
        return Fault(FaultKind.UNREACHABLE, f"cannot be reached ({type(error).__name__})")


async def _exchange(endpoint: Endpoint, request: bytes) -> Reply | Fault:
    reader, writer = await _connect(endpoint)
    try:
        writer.write(request)
        # No drain: a server may answer without having read it all.
        received = b""
        while len(received) <= MOST_ANSWER_BYTES:
            chunk = await reader.read(_CHUNK)
            received += chunk
            reply = _parse(received, is_whole=not chunk)
            if reply is not None:
                return reply
            await asyncio.sleep(_BREATH_S)
        return Fault(FaultKind.BAD_ANSWER, f"answered more than {MOST_ANSWER_BYTES} bytes")
    finally:
        # Not waited for: nothing that comes now matters, and a peer may never say goodbye.
        writer.transport.abort()


async def _connect(endpoint: Endpoint) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect to the first address that answers: one that swallows packets must not hide the next."""
    tls = tls_context() if endpoint.scheme == "https" else None
    named = endpoint.host if tls is not None else None
    failure = OSError("the name has no address")
    for address in (await resolve(endpoint.host, endpoint.port))[:_MOST_ADDRESSES]:
        try:
            async with asyncio.timeout(_CONNECT_S):
                return await asyncio.open_connection(address, endpoint.port, ssl=tls, server_hostname=named)
        except OSError as error:
            failure = error
    raise failure


async def resolve(host: str, port: int) -> list[str]:
    """Addresses of a host, in the resolver's order."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(address[0]) for *_, address in found]


@lru_cache(maxsize=1)
def tls_context() -> ssl.SSLContext:
    """The machine's CAs, or those that SSL_CERT_FILE names. Made once: reading them takes a while."""
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


class _Received:
    """What has come in so far, in the shape that http.client reads from."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def makefile(self, mode: str) -> io.BytesIO:  # noqa: ARG002 - http.client's call
        return io.BytesIO(self._data)


def _parse(received: bytes, *, is_whole: bool) -> Reply | Fault | None:
    """The answer, if these bytes are one; None while more may come."""
    if is_whole and not received:
        return Fault(FaultKind.UNREACHABLE, "closed the connection without an answer")
    if b"\r\n\r\n" not in received and b"\n\n" not in received and not is_whole:
        return None
    response = http.client.HTTPResponse(_Received(received))  # type: ignore[arg-type]  # makefile is all it uses
    try:
        response.begin()
        # Without a length of its own an answer ends where the connection does.
        if response.length is None and not response.chunked and not is_whole:
            return None
        return Reply(response.status, response.getheader("Content-Type", ""), response.read())
    except http.client.IncompleteRead:
        return Fault(FaultKind.BAD_ANSWER, "the answer broke off") if is_whole else None
    except (http.client.HTTPException, ValueError):
        return Fault(FaultKind.BAD_ANSWER, "what it answered is not HTTP")


def _is_plain(url: str) -> bool:
    return url.isascii() and url.isprintable() and " " not in url


def _authorization(parts: SplitResult) -> str:
    if parts.username is None:
        return ""
    pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return "Basic " + base64.b64encode(pair.encode()).decode()
