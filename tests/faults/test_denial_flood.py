"""A client that is refused as fast as it can ask cannot fill the disk, and not one refusal goes uncounted."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from hsmsigner.domain.denial import (
    KINDS_OF_PRINCIPAL,
    MANY_KEYS,
    RECORDED_EACH,
    RECORDED_OF_PRINCIPAL,
    DenialKind,
    DenialLedger,
)
from hsmsigner.operations import denials
from hsmsigner.operations.jobs import Signed
from tests.builder import STRANGER, Signer, asked, make_signer, read_log


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - what is waited for is in a file
            await asyncio.sleep(0.02)


def counted(signer: Signer) -> tuple[int, int]:
    """Records about refusals, and the refusals they stand for."""
    records = [record for record in read_log(signer.database) if record["type"] == "sign.denied"]
    return len(records), sum(int(str(record.get("count", 1))) for record in records)


async def be_refused(signer: Signer, times: int, labels: dict[str, str] | None = None) -> None:
    answers = await signer.signing.sign_batch(
        [asked(principal=STRANGER, labels=labels) for _ in range(times)], None, all_or_nothing=False
    )
    assert not any(isinstance(answer, Signed) for answer in answers)


def test_many_turns_of_refusals_cost_no_more_records_than_one(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with make_signer(tmp_path) as signer:
            for _ in range(30):
                await be_refused(signer, 100, labels={"x": "y"})
            assert counted(signer)[0] == RECORDED_EACH
            assert not any("labels" in record for record in read_log(signer.database))

    asyncio.run(scenario())


def test_totals_become_a_record_when_the_period_is_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(denials, "PERIOD_S", 0.2)

    async def scenario() -> None:
        async with make_signer(tmp_path) as signer:
            for _ in range(5):
                await be_refused(signer, 100)
            # Nobody asks any more: the end of the period alone makes the record.
            await until(lambda: counted(signer)[1] >= 500)
            assert counted(signer)[1] == 500
            last = [record for record in read_log(signer.database) if record["type"] == "sign.denied"][-1]
            assert str(last["since"]) <= str(last["time"])

    asyncio.run(scenario())


def test_kill_9_in_a_flood_loses_no_count(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with make_signer(tmp_path) as signer:
            await be_refused(signer, 400)
            await signer.die()
            await signer.start()
            assert counted(signer) == (RECORDED_EACH + 1, 400)

    asyncio.run(scenario())


def test_made_up_key_names_are_counted_together() -> None:
    ledger = DenialLedger()
    counts = Counter(
        ledger.place(DenialKind("cn:flood", f"keys/settlement-{number}", "KEY_NOT_FOUND_OR_FORBIDDEN"))
        for number in range(10_000)
    )
    own = counts.pop(None)
    assert own == RECORDED_OF_PRINCIPAL
    assert {kind.key for kind in counts if kind is not None} == {MANY_KEYS}
    assert len(counts) <= KINDS_OF_PRINCIPAL
    assert own + sum(counts.values()) == 10_000


def test_one_principals_flood_takes_no_record_from_another() -> None:
    ledger = DenialLedger()
    for number in range(1000):
        ledger.place(DenialKind("cn:flood", f"keys/{number}", "QUOTA_EXCEEDED"))
    assert ledger.place(DenialKind("cn:engine", "keys/settlement-eu", "QUOTA_EXCEEDED")) is None
