"""P9 with real faults: signing stops with a clear error, health says so, and it resumes by itself; nothing is lost."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, closing, contextmanager
from datetime import datetime
from pathlib import Path

import pytest
from grpc_health.v1 import health_pb2

from hsmsigner.api.health import Health
from hsmsigner.domain.instant import format_instant
from hsmsigner.errors import Reason, SignerError
from tests.builder import POLICY, Signer, check_invariants, fresh_id, make_signer, read_log, record_types, usage_total
from tests.faults.broken_disk import broken_disk, can_break_calls, files_limited_to

UNLIMITED = POLICY[: POLICY.index("    quotas:")] + "    quotas: unlimited\n"
Fault = Callable[[Signer], AbstractContextManager[object]]

needs_seccomp = pytest.mark.skipif(not can_break_calls(), reason="system call numbers of this machine are not known")


@pytest.fixture(autouse=True)
def _heals_quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hsmsigner.operations.committer.HEAL_EVERY_S", 0.02)


def run(scenario: object) -> None:
    asyncio.run(asyncio.wait_for(scenario, 30))  # type: ignore[arg-type]


async def until(condition: Callable[[], bool]) -> None:
    """Poll: what is waited for tells nobody. `run` bounds the time."""
    while not condition():  # noqa: ASYNC110 - there is no event to wait for
        await asyncio.sleep(0.005)


def make(folder: Path) -> None:
    folder.mkdir(exist_ok=True)


@asynccontextmanager
async def signing(folder: Path, policy: str = UNLIMITED) -> AsyncIterator[Signer]:
    make(folder)
    async with make_signer(folder, policy=policy) as signer:
        await signer.create_key()
        await signer.sign()
        yield signer


async def is_serving(signer: Signer) -> bool:
    health = Health(signer.token, lambda: signer.committer.can_record, list)
    await health.check()
    answer = await health.servicer.Check(health_pb2.HealthCheckRequest(), None)
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


async def refused(signer: Signer, **options: object) -> SignerError:
    with pytest.raises(SignerError) as caught:
        await signer.sign(**options)  # type: ignore[arg-type]
    assert caught.value.reason is Reason.AUDIT_UNAVAILABLE
    assert caught.value.retry_after_s is not None
    return caught.value


def fsync_fails(signer: Signer) -> AbstractContextManager[object]:
    return broken_disk(signer.store, ("fsync", "fdatasync"))


def write_fails(signer: Signer) -> AbstractContextManager[object]:
    return broken_disk(signer.store, ("pwrite64",))


def disk_is_full(signer: Signer) -> AbstractContextManager[object]:
    return broken_disk(signer.store, ("pwrite64",), errno.ENOSPC)


def disk_is_read_only(signer: Signer) -> AbstractContextManager[object]:
    return broken_disk(signer.store, ("pwrite64",), errno.EROFS)


def file_reaches_its_limit(_signer: Signer) -> AbstractContextManager[object]:
    """Less than one page: neither WAL nor database can be written at all."""
    return files_limited_to(4000)


@contextmanager
def file_is_moved_away(signer: Signer) -> Iterator[None]:
    away = signer.database.rename(signer.database.with_name("away"))
    yield
    away.rename(signer.database)


@contextmanager
def folder_is_moved_away(signer: Signer) -> Iterator[None]:
    away = signer.folder.rename(signer.folder.with_name("away"))
    yield
    away.rename(signer.folder)


@contextmanager
def file_is_replaced(signer: Signer) -> Iterator[None]:
    """By a copy of itself: even that may be older than it looks, and SQLite writes on into the old one."""
    away = signer.database.rename(signer.database.with_name("away"))
    shutil.copy(away, signer.database)
    yield
    away.replace(signer.database)


@contextmanager
def file_is_replaced_by_an_empty_one(signer: Signer) -> Iterator[None]:
    away = signer.database.rename(signer.database.with_name("away"))
    signer.database.touch()
    yield
    away.replace(signer.database)


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(fsync_fails, marks=needs_seccomp),
        pytest.param(write_fails, marks=needs_seccomp),
        pytest.param(disk_is_full, marks=needs_seccomp),
        pytest.param(disk_is_read_only, marks=needs_seccomp),
        file_reaches_its_limit,
        file_is_moved_away,
        folder_is_moved_away,
        file_is_replaced,
        file_is_replaced_by_an_empty_one,
    ],
)
def test_signing_stops_says_so_and_resumes_by_itself(tmp_path: Path, fault: Fault) -> None:
    async def scenario() -> None:
        async with signing(tmp_path / "state") as signer:
            lost = fresh_id()
            signer.clock.advance(60)
            stop_time = format_instant(signer.clock())
            with fault(signer):
                await refused(signer, request_id=lost)
                assert signer.token.signed[1:] == []
                assert not signer.committer.can_record
                assert not await is_serving(signer)
                for _ in range(3):
                    await asyncio.sleep(0.03)
                    await refused(signer)
                signer.clock.advance(60)
            await until(lambda: signer.committer.can_record)

            assert await is_serving(signer)
            resumed = [record for record in read_log(signer.database) if record["type"] == "appliance.resumed"]
            assert [record["since"] for record in resumed] == [stop_time]
            assert datetime.fromisoformat(str(resumed[0]["time"])) > datetime.fromisoformat(stop_time)
            answer = await signer.sign(request_id=lost)
            assert await signer.sign(request_id=lost) == answer

    run(scenario())


@needs_seccomp
@pytest.mark.parametrize("fault", [fsync_fails, write_fails])
def test_a_signature_whose_record_met_the_fault_is_withheld_and_then_given_under_the_same_debit(
    tmp_path: Path, fault: Fault
) -> None:
    async def scenario() -> None:
        async with signing(tmp_path, POLICY) as signer:
            gate = signer.token.gate = asyncio.Event()
            request_id = fresh_id()
            waiting = asyncio.create_task(refused(signer, request_id=request_id))
            await until(lambda: record_types(signer.database)[-1] == "sign.authorized")
            with fault(signer):
                gate.set()
                await waiting
            await until(lambda: signer.committer.can_record)

            await signer.sign(request_id=request_id)
            assert usage_total(signer.database, "burst") == 2

    run(scenario())


@needs_seccomp
def test_what_a_failed_fsync_left_behind_is_written_again_before_anything_builds_on_it(tmp_path: Path) -> None:
    """The kernel reports a failed fsync once. A later one succeeds without those pages: a hole in the WAL."""

    async def scenario() -> None:
        async with signing(tmp_path) as signer:
            used = signer.store._connection
            with fsync_fails(signer):
                await refused(signer)
                assert signer.store._connection is None
                # A reader of an older state keeps the WAL from being begun anew.
                with closing(sqlite3.connect(signer.database, isolation_level=None)) as reader:
                    reader.execute("BEGIN")
                    reader.execute("SELECT count(*) FROM audit_records").fetchone()
            await until(lambda: signer.committer.can_record)
            assert signer.store._connection is not used
            on_disk = copy_of_database_alone(signer)
            assert "sign.authorized" in record_types(on_disk)

    run(scenario())


@needs_seccomp
def test_while_somebody_reads_an_older_state_a_doubtful_wal_is_not_written_on(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with signing(tmp_path) as signer:
            with closing(sqlite3.connect(signer.database, isolation_level=None)) as reader:
                reader.execute("BEGIN")
                reader.execute("SELECT count(*) FROM audit_records").fetchone()
                with fsync_fails(signer):
                    await refused(signer)
                for _ in range(5):
                    await asyncio.sleep(0.03)
                    assert not signer.committer.can_record
                reader.execute("ROLLBACK")
            await until(lambda: signer.committer.can_record)
            await signer.sign()

    run(scenario())


def copy_of_database_alone(signer: Signer) -> Path:
    """The store as it would be if its WAL were lost."""
    copied = signer.folder / "alone.sqlite3"
    shutil.copy(signer.database, copied)
    return copied


@pytest.mark.parametrize("is_read_elsewhere", [False, True])
@pytest.mark.parametrize("suffix", ["-wal", "-shm"])
def test_a_wal_or_its_index_that_was_deleted_is_noticed_before_the_next_signature(
    tmp_path: Path, suffix: str, *, is_read_elsewhere: bool
) -> None:
    """SQLite would go on writing into the deleted file, and none of it would be there after a crash."""

    async def scenario() -> None:
        async with signing(tmp_path) as signer, other_reader(signer, is_there=is_read_elsewhere):
            before = record_types(signer.database)
            signer.database.with_name(signer.database.name + suffix).unlink()

            await refused(signer)

            assert len(signer.token.signed) == 1
            await until(lambda: signer.committer.can_record)
            assert record_types(signer.database)[: len(before)] == before
            await signer.sign()

    run(scenario())


@asynccontextmanager
async def other_reader(signer: Signer, *, is_there: bool) -> AsyncIterator[None]:
    """Another connection that is open: what we close then is not the last, and SQLite tidies nothing up."""
    with closing(sqlite3.connect(signer.database)) as reader:
        if is_there:
            reader.execute("SELECT count(*) FROM audit_records").fetchone()
        yield


def test_an_older_state_in_the_same_file_keeps_signing_stopped_until_they_are_back(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with signing(tmp_path) as signer:
            older = copy_of(signer, "older.sqlite3")
            await signer.sign()
            whole = copy_of(signer, "whole.sqlite3")

            await stop_with(signer, older.read_bytes())
            for _ in range(5):
                await asyncio.sleep(0.03)
                assert not signer.committer.can_record, "it goes on although it knows of records that are gone"

            overwrite(signer.database, whole)
            await until(lambda: signer.committer.can_record)
            await signer.sign()

    run(scenario())


def test_a_store_that_is_being_copied_back_is_not_written_into(tmp_path: Path) -> None:
    """A copy begins with an empty file: taken for a new store, it would be given a schema, and that into the copy."""

    async def scenario() -> None:
        async with signing(tmp_path) as signer:
            whole = copy_of(signer, "whole.sqlite3")
            reopened = asyncio.Semaphore(0)
            reopen = signer.store.reopen

            async def counted_reopen() -> None:
                try:
                    await reopen()
                finally:
                    reopened.release()

            signer.store.reopen = counted_reopen  # type: ignore[method-assign]
            await stop_with(signer, b"")
            for _ in range(5):
                await reopened.acquire()

            assert signer.database.read_bytes() == b""
            overwrite(signer.database, whole)
            await until(lambda: signer.committer.can_record)
            await signer.sign()

    run(scenario())


def copy_of(signer: Signer, name: str) -> Path:
    """The store as it is now, in a file of its own."""
    copy = signer.folder / name
    with closing(sqlite3.connect(signer.database)) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target)
    return copy


async def stop_with(signer: Signer, content: bytes) -> None:
    """Have signing stopped, with other content in the same file."""
    with file_is_moved_away(signer):
        await refused(signer)
        for path in signer.folder.glob("store.sqlite3-*"):
            path.unlink()
        (signer.folder / "away").write_bytes(content)


def overwrite(database: Path, content: Path) -> None:
    """Put other content into the same file, as `cp` does."""
    database.write_bytes(content.read_bytes())


def test_a_disk_that_is_really_full_stops_signing_until_there_is_room(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    if os.system(f"mount -t tmpfs -o size=1m tmpfs {small} 2>/dev/null"):  # noqa: S605 - a path of our own
        pytest.skip("only root can mount a small disk")

    async def scenario() -> None:
        async with signing(small) as signer:
            released = {}
            filler = small / "filler"
            fill(filler)
            while signer.committer.can_record:
                request_id = fresh_id()
                try:
                    released[request_id] = await signer.sign(request_id=request_id)
                except SignerError as error:
                    assert error.reason is Reason.AUDIT_UNAVAILABLE  # noqa: PT017 - how many fit is not known
            assert not await is_serving(signer)
            forget(filler)
            await until(lambda: signer.committer.can_record)
            for request_id, answer in released.items():
                assert await signer.sign(request_id=request_id) == answer
            await signer.sign()
        check_invariants(signer.database)

    try:
        run(scenario())
    finally:
        os.system(f"umount -l {small}")  # noqa: S605 - a path of our own


def fill(path: Path) -> None:
    with path.open("ab", buffering=0) as file:
        for size in (4096, 1):
            try:
                while file.write(bytes(size)):
                    pass
            except OSError as error:
                assert error.errno == errno.ENOSPC  # noqa: PT017 - that it ends so is the point


def forget(path: Path) -> None:
    path.unlink()


def test_a_store_we_may_not_open_any_more_heals_when_we_may(tmp_path: Path) -> None:
    """Files that are open go on being written; what needs the right is to open them again."""

    async def scenario() -> None:
        async with signing(tmp_path / "state") as signer:
            with without_rights_to(signer.folder):
                with file_reaches_its_limit(signer):
                    await refused(signer)
                for _ in range(5):
                    await asyncio.sleep(0.03)
                    assert not signer.committer.can_record
            await until(lambda: signer.committer.can_record)
            await signer.sign()

    run(scenario())


@contextmanager
def without_rights_to(folder: Path) -> Iterator[None]:
    """Nothing in the folder can be opened: to root that happens only when it is nobody for a while."""
    folder.chmod(0o000)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)
        folder.chmod(0o700)
