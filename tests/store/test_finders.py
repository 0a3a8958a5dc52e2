"""Records are found by request_id and by signature, wherever they are in the log."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from hsmsigner.domain.instant import Instant
from hsmsigner.domain.record import Entry
from hsmsigner.errors import Reason, SignerError
from hsmsigner.store import finders
from hsmsigner.store.unit_of_work import SqlStore
from tests.contract.stores import opened, rows
from tests.store.logs import NOW, made_up, read_all, signature_of, write


@pytest.mark.parametrize("size", [0, 1, 255, 256, 1500])
def test_everything_about_a_request_is_found(tmp_path: Path, size: int) -> None:
    async def scenario() -> None:
        async with opened(tmp_path / "store.sqlite3") as store:
            await write(store, 0, size)
            records = [json.loads(record) for _, record in await read_all(store)]
            for sought in ("request-0", "request-1", "request-85", "request-399", "request-", "request-400", '"', ""):
                expected = [one["sequence"] for one in records if one["request_id"] == sought]
                assert await store.find_by_request(sought) == expected

    asyncio.run(scenario())


def test_a_signature_is_found_in_full_and_in_open_tiles(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with opened(tmp_path / "store.sqlite3") as store:
            await write(store, 0, 1500)
            for number in (1, 249, 257, 1497):
                assert made_up(number).type == "sign.completed"
                assert await store.find_by_signature(signature_of(number)) == [number]
            for absent in (signature_of(2), bytes(32), b"", b"short"):
                assert await store.find_by_signature(absent) == []

    asyncio.run(scenario())


def test_many_records_about_one_request_are_all_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finders, "_TILES_AT_ONCE", 3)

    async def scenario() -> None:
        async with opened(tmp_path / "store.sqlite3") as store:
            async with store.transaction() as transaction:
                transaction.append([Entry("sign.denied", {"request_id": "same"})] * 2600, Instant(NOW))
            assert await store.find_by_request("same") == list(range(2600))

    asyncio.run(scenario())


def test_what_lies_beside_a_tile_is_small(tmp_path: Path) -> None:
    database = tmp_path / "store.sqlite3"

    async def scenario() -> None:
        async with opened(database) as store:
            await write(store, 0, 512)

    asyncio.run(scenario())
    found = rows(database, "SELECT length(request_ids), length(signatures) FROM tile_prefixes")
    # One for each of the requests of a tile, however many records it has; one for each signature.
    assert found == [(86 * 4, 32 * 4), (86 * 4, 32 * 4)]


def test_the_log_can_be_read_while_somebody_searches_and_the_store_says_when_it_is_away(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with opened(tmp_path / "store.sqlite3") as store:
            await write(store, 0, 700)
            searches = [asyncio.create_task(store.find_by_request("request-5")) for _ in range(20)]
            pages = await asyncio.gather(*(store.read_log(number, 5) for number in range(20)))
            assert all(len(page.records) == 5 for page in pages)
            assert {tuple(found) for found in await asyncio.gather(*searches)} == {(15, 16, 17)}

        away = SqlStore(f"sqlite:///{tmp_path / 'other.sqlite3'}")
        reads = (
            away.read_log(0, 1), away.find_by_request("x"), away.find_by_signature(bytes(32)), away.root_at(0),
            away.inclusion_proof(0, 1), away.consistency_proof(0, 1), away.read_tile(0, 0), away.read_checkpoints(0, 1),
            away.read_newest_checkpoint(), away.read_newest_cosigned("x"),
        )  # fmt: skip
        for outcome in await asyncio.gather(*reads, return_exceptions=True):
            assert isinstance(outcome, SignerError)
            assert outcome.reason is Reason.AUDIT_UNAVAILABLE
        await away.close()

    asyncio.run(asyncio.wait_for(scenario(), 60))
