"""A running appliance: who it is, whether its port answers, and what its token worker says of the token."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator

from hsmsigner.config import Settings
from hsmsigner.doctor.finding import Finding, fault, fine
from hsmsigner.doctor.memory import check_memory
from hsmsigner.doctor.token_probe import findings_of
from hsmsigner.errors import SignerError
from hsmsigner.operations.ports import TokenStatus, TreeHead
from hsmsigner.token.client import TokenClient
from hsmsigner.token.protocol import frame_limit

_TIMEOUT_S = 5.0
_SEE_LOG = "read the end of its log: the supervisor says there why a process ends and when it starts another"


def check_running(settings: Settings) -> Iterator[Finding]:
    """Ask an appliance that holds the state folder."""
    yield _port(settings)
    try:
        status, remembered = asyncio.run(_ask_token(settings))
    except (SignerError, TimeoutError):
        yield fault("token", "the running appliance's token worker does not answer for the token", _SEE_LOG)
        return
    yield from findings_of(
        {
            "label": status.label,
            "serial": status.serial,
            "module": status.module,
            "algorithms": sorted(status.algorithms),
        }
    )
    yield from check_memory(settings, remembered)


def _port(settings: Settings) -> Finding:
    try:
        address = settings.address_file.read_text("ascii").strip()
        host, _, port = address.rpartition(":")
        socket.create_connection((host.strip("[]"), int(port)), timeout=_TIMEOUT_S).close()
    except (OSError, ValueError) as error:
        return fault("port", f"the running appliance does not answer on its port ({type(error).__name__})", _SEE_LOG)
    return fine("port", f"the running appliance listens on {address}")


async def _ask_token(settings: Settings) -> tuple[TokenStatus, TreeHead | None]:
    client = TokenClient(
        settings.token_socket, deadline_s=settings.token.call_timeout_s, frame_limit=frame_limit(settings.limits)
    )
    await client.start()
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            await client.wait_connected()
        return await client.status(), await client.recall(settings.audit.origin)
    finally:
        await client.close()
