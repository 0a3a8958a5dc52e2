"""A token that is away is asked many times a second; the operational log is told of it once a minute."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import pytest

from hsmsigner.errors import Reason, SignerError
from hsmsigner.token import client as token_client
from hsmsigner.token.client import TokenClient


async def ask(client: TokenClient, times: int) -> None:
    for _ in range(times):
        with pytest.raises(SignerError) as caught:
            await client.status()
        assert caught.value.reason is Reason.TOKEN_UNAVAILABLE


def complaints(caplog: pytest.LogCaptureFixture) -> int:
    return sum(record.levelno == logging.WARNING for record in caplog.records)


def test_a_fault_that_lasts_is_written_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    client = TokenClient(tmp_path / "token.sock", deadline_s=5.0, frame_limit=1000)
    asyncio.run(ask(client, 100))
    assert complaints(caplog) == 1


def test_it_is_written_again_when_it_still_lasts(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(token_client, "_SAY_AGAIN_S", 0.0)
    client = TokenClient(tmp_path / "token.sock", deadline_s=5.0, frame_limit=1000)
    asyncio.run(ask(client, 3))
    assert complaints(caplog) == 3
