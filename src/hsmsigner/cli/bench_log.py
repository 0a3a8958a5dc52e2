"""`hsmsigner bench --log`: what a long log costs at the start, in proofs, in searches, and in every signature."""

from __future__ import annotations

import asyncio
import random
import statistics
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import perf_counter

from hsmsigner.cli.bench_appliance import disk_of
from hsmsigner.domain.instant import Instant
from hsmsigner.domain.record import Entry
from hsmsigner.operations.ports import LogFilter, Outcome
from hsmsigner.store.unit_of_work import SqlStore

# A transaction as a busy appliance has them.
_TURN = 100
_TURNS = 150
# One while the log is built: a level-1 tile.
_BUILT_AT_ONCE = 65_536
_PROOFS = 200
_SEARCHES = 5
_START_US = 1_800_000_000_000_000
_TURN_US = 5000
_KEYS = 20
_PRINCIPALS = 5
# One refusal in so many records: what an auditor looks for is rare.
_RARE = 100_003

_START_AIM_MS = 1000.0
_PROOF_AIM_MS = 5.0
_SEARCH_AIM_MS = 300.0
# A disk's fsync alone varies more than this from one run to the next.
_APPEND_AIM = 1.1


@dataclass(frozen=True, slots=True)
class LogRow:
    """One measurement, in milliseconds. `aim_ms` bounds the median, where something was promised."""

    name: str
    p50_ms: float
    max_ms: float
    aim_ms: float | None = None


@dataclass(frozen=True, slots=True)
class LogReport:
    """What was found with a log of `records`. `append_ratio` compares appending to it and to an empty one."""

    records: int
    store_mib: float
    build_records_per_s: float
    rows: tuple[LogRow, ...]
    append_ratio: float
    append_aim: float
    disk: str

    @property
    def missed(self) -> tuple[str, ...]:
        """Names of what was promised and not reached."""
        rows = [row.name for row in self.rows if row.aim_ms is not None and row.p50_ms > row.aim_ms]
        return (*rows, *(["append, against an empty log"] if self.append_ratio > self.append_aim else []))


def run_log_bench(directory: Path, records: int, progress: Callable[[str], None]) -> LogReport:
    """Build a log of so many records in `directory`, with the code that writes every log, and measure it.

    Takes about half a GiB and half a minute for each million.
    """
    return asyncio.run(_run(directory, records, progress))


async def _run(directory: Path, records: int, progress: Callable[[str], None]) -> LogReport:
    database = directory / "log.sqlite3"
    async with _opened(database) as store:
        started_s = perf_counter()
        await _build(store, records, progress)
        rate = records / (perf_counter() - started_s)
    progress("measuring")
    starts = [await _timed(partial(_start, database)) for _ in range(3)]
    async with _opened(database) as store, _opened(directory / "empty.sqlite3") as empty:
        rows = [_row("start", starts, _START_AIM_MS), *await _measure_reads(store, records)]
        grown, fresh = await _measure_appends(store, empty)
    return LogReport(
        records=records,
        store_mib=database.stat().st_size / 2**20,
        build_records_per_s=rate,
        rows=(*rows, _row(f"append {_TURN}, durably", grown), _row(f"append {_TURN} to an empty log", fresh)),
        append_ratio=statistics.median(grown) / statistics.median(fresh),
        append_aim=_APPEND_AIM,
        disk=disk_of(directory),
    )


@asynccontextmanager
async def _opened(database: Path) -> AsyncIterator[SqlStore]:
    store = SqlStore(f"sqlite:///{database}")
    try:
        await store.reopen()
        yield store
    finally:
        await store.close()


async def _start(database: Path) -> None:
    async with _opened(database):
        pass


async def _build(store: SqlStore, records: int, progress: Callable[[str], None]) -> None:
    for first in range(0, records, _BUILT_AT_ONCE):
        progress(f"building: {first:,} of {records:,} records")
        last = min(records, first + _BUILT_AT_ONCE)
        async with store.transaction() as transaction:
            for turn in range(first, last, _TURN):
                transaction.append(_entries(turn, min(last, turn + _TURN)), _time_of(turn))


def _entries(first: int, last: int) -> list[Entry]:
    return [_entry(number) for number in range(first, last)]


def _entry(number: int) -> Entry:
    """Two records for each request, as signing writes them."""
    request = number // 2
    fields: dict[str, object] = {
        "request_id": _request_id(number),
        "principal": f"spiffe://bench.hsmsigner/engine-{request % _PRINCIPALS}",
        "key": f"keys/settlement-{request % _KEYS}/versions/{1 + request // 1_000_000}",
    }
    if number % _RARE == _RARE - 1:
        return Entry("sign.denied", fields | {"reason": "QUOTA_EXCEEDED"})
    if number % 2:
        fields |= {"authorized": number - 1, "signature_sha256": _signature(number).hex()}
        return Entry("sign.completed", fields)
    return Entry("sign.authorized", fields | {"policy_revision": 1})


def _request_id(number: int) -> str:
    # Knuth's multiplicative hash: ids that look like nobody's, and that can be asked for again.
    return f"{(number // 2) * 2_654_435_761 % 2**32:08x}-0000-4000-8000-{number // 2:012x}"


def _signature(number: int) -> bytes:
    return random.Random(number).randbytes(32)  # noqa: S311 - stands for a hash, and must come out again


def _with_signature(number: int, records: int) -> int | None:
    """The next record from this one on that has a signature."""
    return next((near for near in range(number, records) if near % 2 and near % _RARE != _RARE - 1), None)


def _time_of(number: int) -> Instant:
    return Instant(_START_US + number // _TURN * _TURN_US)


async def _measure_reads(store: SqlStore, records: int) -> Sequence[LogRow]:
    chance = random.Random(records)  # noqa: S311 - the same questions in every run

    def somewhere() -> int:
        return chance.randrange(records)

    async def prove_inclusion() -> None:
        await store.inclusion_proof(somewhere(), records)

    async def prove_consistency() -> None:
        await store.consistency_proof(1 + somewhere(), records)

    async def find_request() -> None:
        number = somewhere()
        if number not in await store.find_by_request(_request_id(number)):
            raise AssertionError(f"record {number} was not found by its request_id")

    async def find_signature() -> None:
        number = _with_signature(somewhere(), records)
        # A log of one record has no signature to look for.
        if number is not None and number not in await store.find_by_signature(_signature(number)):
            raise AssertionError(f"record {number} was not found by its signature")

    async def read(wanted: LogFilter) -> None:
        await store.read_log(0, 100, wanted)

    key = LogFilter(key=f"keys/settlement-{chance.randrange(_KEYS)}", types=("sign.completed",))
    period = LogFilter(start_time=_time_of(records // 2), end_time=_time_of(records // 2 + 10_000), types=key.types)
    plan: tuple[tuple[str, Callable[[], Awaitable[None]], int, float], ...] = (
        ("inclusion proof", prove_inclusion, _PROOFS, _PROOF_AIM_MS),
        ("consistency proof", prove_consistency, _PROOFS, _PROOF_AIM_MS),
        ("100 records of a key and type", partial(read, key), _SEARCHES, _SEARCH_AIM_MS),
        ("100 records of a period and type", partial(read, period), _SEARCHES, _SEARCH_AIM_MS),
        ("all refusals", partial(read, LogFilter(outcome=Outcome.DENIED)), _SEARCHES, _SEARCH_AIM_MS),
        ("records of a request_id", find_request, _SEARCHES, _SEARCH_AIM_MS),
        ("record of a signature", find_signature, _SEARCHES, _SEARCH_AIM_MS),
    )
    return [_row(name, [await _timed(ask) for _ in range(count)], aim) for name, ask, count, aim in plan]


async def _measure_appends(store: SqlStore, empty: SqlStore) -> tuple[list[float], list[float]]:
    """Milliseconds of each transaction, on the long log and on one that was empty: in turns, so both suffer alike."""
    stores = (store, empty)
    taken: tuple[list[float], list[float]] = ([], [])
    for turn in range(_TURNS):
        for one, times in zip(stores, taken, strict=True):
            times.append(await _timed(partial(_append, one, turn * _TURN)))
    return taken


async def _append(store: SqlStore, first: int) -> None:
    async with store.transaction() as transaction:
        now = Instant(transaction.last_time + _TURN_US)
        transaction.append(_entries(first, first + _TURN), max(now, Instant(_START_US)))


async def _timed(work: Callable[[], Awaitable[None]]) -> float:
    started_s = perf_counter()
    await work()
    return (perf_counter() - started_s) * 1000


def _row(name: str, times: Sequence[float], aim_ms: float | None = None) -> LogRow:
    return LogRow(name, statistics.median(times), max(times), aim_ms)
