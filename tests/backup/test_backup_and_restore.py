"""Backups: consistent, checked, never in the way; restores: all or nothing, with the old store kept."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import shutil
import sqlite3
import tarfile
import threading
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from hsmsigner.backup import restore_backup, take_backup
from hsmsigner.config import load_settings
from hsmsigner.domain.instant import Instant
from hsmsigner.domain.record import Entry
from hsmsigner.errors import ConfigurationError
from hsmsigner.provision import initialise_state
from hsmsigner.state_lock import take_lock
from hsmsigner.store.inspection import inspect_store
from hsmsigner.store.unit_of_work import SqlStore
from tests.builder import read_log

NOW = datetime(2026, 11, 20, 6, 0, tzinfo=UTC)


def quietly(_text: str) -> None:
    """Nobody watches."""


def write(state: Path, count: int, what: str = "") -> None:
    async def scenario() -> None:
        store = SqlStore(f"sqlite:///{state / 'store.sqlite3'}")
        await store.reopen()
        for number in range(count):
            async with store.transaction() as transaction:
                transaction.append([Entry("test.entry", {"what": what})], Instant(1_800_000_000_000_000 + number))
        await store.close()

    asyncio.run(scenario())


@pytest.fixture(scope="module")
def provisioned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    state = tmp_path_factory.mktemp("once") / "state"
    initialise_state(state, now=datetime.now(UTC))
    return state


@pytest.fixture
def state(provisioned: Path, tmp_path: Path) -> Path:
    """A stopped appliance whose log has 300 records; its token is not the one of the settings, and is not asked."""
    copied = shutil.copytree(provisioned, tmp_path / "state")
    write(copied, 300)
    return copied


def take(state: Path, out: Path) -> Path:
    where, _ = take_backup(state / "hsmsigner.yaml", out, NOW, quietly)
    return where


@pytest.mark.parametrize("name", ["backup", "backup.tar"])
def test_what_was_taken_can_be_put_back(state: Path, tmp_path: Path, name: str) -> None:
    before = read_log(state / "store.sqlite3")
    taken = take(state, tmp_path / name)
    write(state, 50, "after the backup")

    restored = restore_backup(taken, state, quietly, is_forced=True)

    assert read_log(state / "store.sqlite3") == before
    assert restored.set_aside == state / "store.sqlite3.before-restore"
    assert len(read_log(restored.set_aside)) == 350
    assert restored.manifest.size == 300
    assert (restored.written, restored.differing) == ((), ())
    write(state, 1, "it goes on")


def test_a_folder_that_is_there_gets_a_file_named_after_the_time(state: Path, tmp_path: Path) -> None:
    assert take(state, tmp_path).name == "hsmsigner-20261120T060000Z.tar"


def test_it_can_be_put_into_a_folder_that_has_nothing(state: Path, tmp_path: Path) -> None:
    taken, empty = take(state, tmp_path / "backup"), tmp_path / "new"

    restored = restore_backup(taken, empty, quietly)

    assert {path.name for path in restored.written} == {"hsmsigner.yaml", "policy.yaml"}
    assert restored.set_aside is None
    assert restored.token_fault
    assert (empty / "policy.yaml").read_bytes() == (state / "policy.yaml").read_bytes()
    assert inspect_store(empty / "store.sqlite3").head.size == 300


@pytest.mark.parametrize("name", ["backup", "backup.tar"])
def test_no_private_key_and_no_pin_is_in_it(state: Path, tmp_path: Path, name: str) -> None:
    taken = take(state, tmp_path / name)
    if taken.is_dir():
        names = {path.name for path in taken.iterdir()}
        assert (taken.stat().st_mode & 0o077, (taken / "store.sqlite3").stat().st_mode & 0o077) == (0, 0)
    else:
        with tarfile.open(taken) as tar:
            names = set(tar.getnames())
        assert taken.stat().st_mode & 0o077 == 0
    assert names == {"manifest.json", "hsmsigner.yaml", "policy.yaml", "store.sqlite3"}
    files = [taken] if taken.is_file() else list(taken.iterdir())
    pins = [(state / "token" / f"{which}.pin").read_bytes().strip() for which in ("user", "so")]
    content = b"".join(path.read_bytes() for path in files)
    assert not any(secret in content for secret in (b"PRIVATE KEY", *pins))


def test_it_overwrites_nothing(state: Path, tmp_path: Path) -> None:
    (tmp_path / "there.tar").write_bytes(b"mine")
    with pytest.raises(ConfigurationError, match="never overwrites"):
        take(state, tmp_path / "there.tar")
    assert (tmp_path / "there.tar").read_bytes() == b"mine"
    assert not list(tmp_path.glob(".*"))


def test_a_copy_under_load_is_one_state_of_the_log_and_holds_nobody_up(state: Path, tmp_path: Path) -> None:
    """Without one snapshot around the copy, each commit would begin it anew, and it would never end."""
    is_over, written = threading.Event(), 0

    def load() -> None:
        nonlocal written

        async def scenario() -> None:
            nonlocal written
            store = SqlStore(f"sqlite:///{state / 'store.sqlite3'}")
            await store.reopen()
            while not is_over.is_set():
                async with store.transaction() as transaction:
                    transaction.append([Entry("test.entry", {"filler": "x" * 4000})] * 20, Instant(2 * 10**15))
                written += 20
            await store.close()

        asyncio.run(scenario())

    writer = threading.Thread(target=load)
    writer.start()
    try:
        sizes = []
        for number in range(3):
            before = written
            while written < before + 200:
                is_over.wait(0.01)
            _, manifest = take_backup(state / "hsmsigner.yaml", tmp_path / f"backup-{number}", NOW, quietly)
            sizes.append(manifest.size)
            assert inspect_store(tmp_path / f"backup-{number}" / "store.sqlite3").head.root_hash.hex() == manifest.root
    finally:
        is_over.set()
        writer.join()
    assert sizes == sorted(set(sizes))
    assert len(read_log(state / "store.sqlite3")) == 300 + written


def test_a_damaged_store_is_no_backup(state: Path, tmp_path: Path) -> None:
    with closing(sqlite3.connect(state / "store.sqlite3")) as connection, connection:
        connection.execute("DELETE FROM audit_records WHERE sequence = 299")
    with pytest.raises(ConfigurationError, match="ends with record 298"):
        take(state, tmp_path / "backup")
    assert not (tmp_path / "backup").exists()


def test_a_full_disk_leaves_nothing_half_made(state: Path, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    if os.system(f"mount -t tmpfs -o size=64k tmpfs {small} 2>/dev/null"):  # noqa: S605 - a path of our own
        pytest.skip("only root can mount a small disk")
    try:
        with pytest.raises(ConfigurationError, match=r"full|No space"):
            take(state, small / "backup")
        assert list(small.iterdir()) == []
    finally:
        os.system(f"umount -l {small}")  # noqa: S605 - a path of our own


def edit_store(backup: Path) -> None:
    content = bytearray((backup / "store.sqlite3").read_bytes())
    content[-100] ^= 1
    (backup / "store.sqlite3").write_bytes(content)


def cut_store(backup: Path) -> None:
    os.truncate(backup / "store.sqlite3", 8192)


def claim_more(backup: Path) -> None:
    edit_manifest(backup, size=301)


def claim_other_root(backup: Path) -> None:
    edit_manifest(backup, root="00" * 32)


def claim_other_log(backup: Path) -> None:
    edit_manifest(backup, origin="other.example/log")


def claim_other_format(backup: Path) -> None:
    edit_manifest(backup, format="hsmsigner-backup@v2")


def break_manifest(backup: Path) -> None:
    (backup / "manifest.json").write_text("{")


def lose_policy(backup: Path) -> None:
    (backup / "policy.yaml").unlink()


def replace_store(backup: Path) -> None:
    """Somebody who makes the manifest fit too is found by the log itself only if it does not end as it should."""
    with closing(sqlite3.connect(backup / "store.sqlite3")) as connection, connection:
        connection.execute("DELETE FROM audit_records WHERE sequence = 299")
    content = (backup / "store.sqlite3").read_bytes()
    entry = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    manifest = json.loads((backup / "manifest.json").read_text())
    edit_manifest(backup, files=manifest["files"] | {"store.sqlite3": entry})


def edit_manifest(backup: Path, **changes: object) -> None:
    manifest = json.loads((backup / "manifest.json").read_text())
    (backup / "manifest.json").write_text(json.dumps(manifest | changes))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (edit_store, "not what its manifest says"),
        (cut_store, "not what its manifest says"),
        (replace_store, "ends with record 298"),
        (claim_more, "manifest says"),
        (claim_other_root, "manifest says"),
        (claim_other_log, "is it the right folder"),
        (claim_other_format, "format"),
        (break_manifest, "cannot be read"),
        (lose_policy, "no backup"),
    ],
)
def test_a_backup_that_is_not_what_it_says_changes_nothing(
    state: Path, tmp_path: Path, damage: Callable[[Path], None], words: str
) -> None:
    taken = take(state, tmp_path / "backup")
    damage(taken)
    before = (state / "store.sqlite3").read_bytes()

    with pytest.raises(ConfigurationError, match=words):
        restore_backup(taken, state, quietly, is_forced=True)

    assert (state / "store.sqlite3").read_bytes() == before
    assert not [path.name for path in state.iterdir() if "restor" in path.name]


@pytest.mark.parametrize("content", [b"", b"no archive at all" * 100])
def test_what_is_no_backup_is_refused(state: Path, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "backup.tar"
    path.write_bytes(content)
    with pytest.raises(ConfigurationError, match="no backup"):
        restore_backup(path, state, quietly)


def test_an_archive_with_links_in_it_is_refused(state: Path, tmp_path: Path) -> None:
    path = tmp_path / "backup.tar"
    with tarfile.open(path, "w") as tar:
        for name in ("manifest.json", "hsmsigner.yaml", "policy.yaml", "store.sqlite3"):
            link = tarfile.TarInfo(name)
            link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
            tar.addfile(link)
    with pytest.raises(ConfigurationError, match="no backup"):
        restore_backup(path, state, quietly)


def test_a_store_that_is_there_is_replaced_only_by_force(state: Path, tmp_path: Path) -> None:
    taken = take(state, tmp_path / "backup")
    write(state, 7)
    with pytest.raises(ConfigurationError, match=r"with 307 records.*has 300 records.*--force"):
        restore_backup(taken, state, quietly)
    assert len(read_log(state / "store.sqlite3")) == 307


def test_a_running_appliance_is_left_alone(state: Path, tmp_path: Path) -> None:
    taken = take(state, tmp_path / "backup")
    lock = take_lock(load_settings(state / "hsmsigner.yaml"))
    try:
        with pytest.raises(ConfigurationError, match="stop it first"):
            restore_backup(taken, state, quietly, is_forced=True)
    finally:
        os.close(lock)


def test_what_the_old_store_had_in_its_wal_is_kept_and_does_not_reach_the_new_one(state: Path, tmp_path: Path) -> None:
    taken = take(state, tmp_path / "backup")
    database = state / "store.sqlite3"
    killed_after(database, 5)
    assert database.with_name("store.sqlite3-wal").stat().st_size

    restored = restore_backup(taken, state, quietly, is_forced=True)

    assert restored.set_aside is not None
    assert len(read_log(restored.set_aside)) == 305
    assert len(read_log(database)) == 300


def test_a_store_too_damaged_to_be_opened_is_kept_with_its_wal(state: Path, tmp_path: Path) -> None:
    taken = take(state, tmp_path / "backup")
    database = state / "store.sqlite3"
    killed_after(database, 5)
    content = database.read_bytes()
    database.write_bytes(b"garbage" * 1000 + content[7000:])

    restored = restore_backup(taken, state, quietly, is_forced=True)

    assert restored.set_aside is not None
    assert restored.set_aside.read_bytes().startswith(b"garbage")
    assert len(read_log(database)) == 300


def test_each_restore_keeps_what_it_found(state: Path, tmp_path: Path) -> None:
    taken = take(state, tmp_path / "backup")
    names = {restore_backup(taken, state, quietly, is_forced=True).set_aside for _ in range(3)}
    assert {path.name for path in names if path is not None} == {
        "store.sqlite3.before-restore",
        "store.sqlite3.before-restore-2",
        "store.sqlite3.before-restore-3",
    }


def test_settings_of_this_machine_stay_and_are_named(state: Path, tmp_path: Path) -> None:
    taken = take(state, tmp_path / "backup")
    changed = (state / "policy.yaml").read_text() + "# changed here\n"
    (state / "policy.yaml").write_text(changed)

    restored = restore_backup(taken, state, quietly, is_forced=True)

    assert restored.differing == (state / "policy.yaml",)
    assert (state / "policy.yaml").read_text() == changed


def killed_after(database: Path, count: int) -> None:
    """Append records and leave the WAL behind, as a killed appliance does."""
    copies = {suffix: database.with_name(f"copy{suffix}") for suffix in ("", "-wal")}

    async def scenario() -> None:
        store = SqlStore(f"sqlite:///{database}")
        await store.reopen()
        async with store.transaction() as transaction:
            transaction.append([Entry("test.entry", {})] * count, Instant(2 * 10**15))
        for suffix, copied in copies.items():
            shutil.copy(f"{database}{suffix}", copied)
        await store.close()

    asyncio.run(scenario())
    for suffix, copied in copies.items():
        copied.replace(f"{database}{suffix}")
