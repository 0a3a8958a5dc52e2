"""A filter gives what a look at every record would give, in order, and reads little for it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hsmsigner.domain.instant import Instant, format_instant
from hsmsigner.domain.record import Entry
from hsmsigner.errors import Reason, SignerError
from hsmsigner.operations.ports import LogFilter, Outcome
from hsmsigner.store import pages
from tests.contract.stores import opened, rows, tamper
from tests.store.logs import KEYS, NOW, PRINCIPALS, TYPES, made_up, read_all, write

SIZE = 3000

OUTCOMES = {
    "sign.authorized": Outcome.ANNOUNCED,
    "sign.completed": Outcome.DONE,
    "sign.denied": Outcome.DENIED,
    "sign.failed": Outcome.FAILED,
    "sign.interrupted": Outcome.INTERRUPTED,
    "key.created": Outcome.DONE,
    "key.rotation_started": Outcome.ANNOUNCED,
    "appliance.started": Outcome.DONE,
}


def naively_fits(record: dict[str, Any], wanted: LogFilter) -> bool:
    key, time = record.get("key", ""), record["time"]
    names = {key, key.partition("/versions/")[0], record.get("version")}
    return (
        (not wanted.key or (bool(key) and wanted.key in names))
        and (not wanted.principal or record.get("principal") == wanted.principal)
        and (wanted.outcome is None or OUTCOMES[record["type"]] is wanted.outcome)
        and (
            not wanted.types
            or any(record["type"] == one or (one[-1] == "." and record["type"].startswith(one)) for one in wanted.types)
        )
        and (wanted.start_time is None or time >= format_instant(wanted.start_time))
        and (wanted.end_time is None or time < format_instant(wanted.end_time))
    )


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("filters") / "store.sqlite3"

    async def fill() -> None:
        async with opened(path) as store:
            for first in range(0, SIZE, 100):
                await write(store, first, 100)

    asyncio.run(fill())
    return path


instants = st.none() | st.integers(-10, SIZE + 10).map(lambda offset: Instant(NOW + offset))
filters = st.builds(
    LogFilter,
    key=st.sampled_from(["", "", *KEYS, "keys/b", "keys/nobody", 'keys/"']),
    principal=st.sampled_from(["", *PRINCIPALS, "nobody"]),
    types=st.lists(st.sampled_from([*TYPES, "sign.", "key.", "nothing."]), max_size=3).map(tuple),
    outcome=st.none() | st.sampled_from(Outcome),
    start_time=instants,
    end_time=instants,
)


@given(filters, st.sampled_from([1, 7, 100, 1000]))
@settings(max_examples=60, deadline=None)
def test_a_filter_gives_what_a_look_at_every_record_gives(database: Path, wanted: LogFilter, limit: int) -> None:
    async def scenario() -> None:
        async with opened(database) as store:
            everything = await read_all(store)
            expected = [one for one in everything if naively_fits(json.loads(one[1]), wanted)]
            if limit > 1 or len(expected) < 100:
                assert await read_all(store, wanted, limit) == expected

    asyncio.run(scenario())


def test_one_call_looks_through_few_tiles_and_says_where_to_go_on(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages, "TILES_AT_ONCE", 2)

    async def scenario() -> None:
        async with opened(database) as store:
            # Every tile has records of this key, and none of this version.
            page = await store.read_log(0, 10, LogFilter(key="keys/a/versions/7"))
            assert (page.records, page.next_sequence, page.tree_size) == ([], 512, SIZE)
            assert await read_all(store, LogFilter(key="keys/a/versions/7")) == []
            assert len(await read_all(store, LogFilter(key="keys/a/versions/12"))) > 300

    asyncio.run(scenario())


def test_tiles_without_the_wanted_kind_are_not_looked_at(tmp_path: Path) -> None:
    database = tmp_path / "store.sqlite3"

    async def scenario() -> None:
        async with opened(database) as store:
            async with store.transaction() as transaction:
                usual = [Entry("sign.completed", {"key": "keys/a"})] * 100_000
                usual[7] = usual[99_000] = Entry("policy.published", {})
                transaction.append(usual, Instant(NOW))
            page = await store.read_log(0, 10, LogFilter(types=("policy.",)))
            assert [sequence for sequence, _ in page.records] == [7, 99_000]
            assert page.next_sequence == page.tree_size == 100_000
        found = rows(database, "SELECT tile FROM kind_tiles JOIN record_kinds USING (kind) WHERE type LIKE 'policy.%'")
        assert found == [(0,), (99_000 // 256,)]

    asyncio.run(scenario())


def test_a_page_ends_where_the_log_does(database: Path) -> None:
    async def scenario() -> None:
        async with opened(database) as store:
            for wanted in (LogFilter(), LogFilter(key="keys/nobody"), LogFilter(end_time=Instant(NOW + 100))):
                page = await store.read_log(SIZE - 3, 3, wanted)
                assert page.next_sequence == page.tree_size == SIZE
                assert (await store.read_log(SIZE, 3, wanted)).next_sequence == SIZE
                assert (await store.read_log(SIZE + 5, 3, wanted)).next_sequence == SIZE + 5
                assert (await store.read_log(5, 0, wanted)).next_sequence == 5

    asyncio.run(scenario())


def test_a_record_that_somebody_broke_fits_no_filter_and_hides_no_other(tmp_path: Path) -> None:
    database = tmp_path / "store.sqlite3"

    async def scenario() -> None:
        async with opened(database) as store:
            await write(store, 0, 1000)
            tamper(database, "UPDATE audit_records SET record = CAST('{' AS BLOB) WHERE sequence = 500")
            tamper(database, "UPDATE audit_records SET record = CAST('[1]' AS BLOB) WHERE sequence = 501")
            tamper(database, "UPDATE audit_records SET record = 7 WHERE sequence = 502")
            found = await read_all(store, LogFilter(types=("sign.", "key.", "appliance.")))
            assert [sequence for sequence, _ in found] == [one for one in range(1000) if not 500 <= one < 503]
            assert len(await read_all(store, LogFilter(start_time=Instant(NOW)))) == 1000

    asyncio.run(scenario())


def test_sealed_records_are_refused_with_the_first_that_is_there(tmp_path: Path) -> None:
    database = tmp_path / "store.sqlite3"

    async def scenario() -> None:
        async with opened(database) as store:
            await write(store, 0, 1000)
            # As sealing does it: from then on records below count as gone, whether they are deleted yet or not.
            tamper(database, "UPDATE appliance SET first_sequence = 512")
            tamper(database, "DELETE FROM audit_records WHERE sequence < 300")
            for wanted in (LogFilter(), LogFilter(types=("sign.",)), LogFilter(start_time=Instant(NOW + 600))):
                with pytest.raises(SignerError) as caught:
                    await store.read_log(511, 10, wanted)
                assert caught.value.reason is Reason.RECORDS_SEALED
                assert caught.value.metadata == {"first_sequence": "512"}
            assert [one for one, _ in (await store.read_log(512, 3)).records] == [512, 513, 514]
            assert await store.inclusion_proof(5, 1000)
            await store.reopen()
            with pytest.raises(SignerError) as caught:
                await store.find_by_request(str(made_up(4).fields["request_id"]))
            assert caught.value.reason is Reason.RECORDS_SEALED
            assert await store.find_by_request("never-heard-of") == []

    asyncio.run(scenario())
