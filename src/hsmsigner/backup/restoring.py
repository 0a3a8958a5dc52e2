"""`hsmsigner restore`: puts the store of a backup in place, and says what the token will make of it."""

from __future__ import annotations

import os
import sqlite3
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from hsmsigner.backup.copies import (
    Progress,
    hash_file,
    require_whole,
    sync_folder,
    write_file,
)
from hsmsigner.backup.manifest import MANIFEST, POLICY, SETTINGS, STORE, FileEntry, Manifest
from hsmsigner.config import Settings, load_settings
from hsmsigner.doctor.token_probe import ProbeError, probe_token, remembered_in
from hsmsigner.errors import ConfigurationError
from hsmsigner.operations.contradiction import Contradiction, compare
from hsmsigner.state_lock import take_lock
from hsmsigner.store.inspection import StoreState, read_heads

_SIDE_FILES = ("-wal", "-shm")


@dataclass(frozen=True, slots=True)
class Restored:
    """What was put in place. `remembered_size` is None when the token remembers nothing, or could not be asked.

    `set_aside` is where the store lies that was there before; `written` are the files that were missing; `differing`
    those that are there and not as in the backup: they were left alone.
    """

    manifest: Manifest
    database: Path
    set_aside: Path | None
    written: tuple[Path, ...]
    differing: tuple[Path, ...]
    remembered_size: int | None
    token_fault: str
    contradiction: Contradiction | None


def restore_backup(backup: Path, state: Path, progress: Progress, *, is_forced: bool = False) -> Restored:
    """Put a backup's store in place of whatever is there, which is kept aside; the appliance must be stopped.

    Settings and policy are written only where there are none: those of this machine stay.

    Raises:
        ConfigurationError: the backup is not what its manifest says, an appliance runs on the folder, the log has
            another name there, or there is a store and this is not forced. Then the store is as it was; settings or
            policy may have been written where there were none.
    """
    with _opened(backup) as files:
        manifest = Manifest.decode(files[MANIFEST])
        try:
            state.mkdir(mode=0o700, parents=True, exist_ok=True)
            written = _write_missing(state, SETTINGS, manifest, files)
            settings = load_settings(state / SETTINGS)
            _require_same_log(settings, manifest)
            lock = take_lock(settings)
            try:
                written += _write_missing(state, POLICY, manifest, files)
                database, set_aside = _swap(settings, manifest, files[STORE], progress, is_forced=is_forced)
                remembered, fault, contradiction = _ask_token(state / SETTINGS, database)
            finally:
                os.close(lock)
        except OSError as error:
            raise ConfigurationError(f"cannot restore to {state}: {error.filename or ''} {error.strerror}") from error
        differing = tuple(state / name for name in (SETTINGS, POLICY) if _differs(state / name, manifest.files[name]))
    return Restored(manifest, database, set_aside, written, differing, remembered, fault, contradiction)


@contextmanager
def _opened(backup: Path) -> Iterator[dict[str, BinaryIO]]:
    """The files of a backup, a folder or an archive, by name."""
    names = MANIFEST, SETTINGS, POLICY, STORE
    with ExitStack() as stack:
        try:
            if backup.is_dir():
                yield {name: stack.enter_context((backup / name).open("rb")) for name in names}
                return
            tar = stack.enter_context(tarfile.open(backup, "r:"))
            members = {name: tar.extractfile(name) for name in names}
        except (OSError, tarfile.TarError, KeyError) as error:
            raise ConfigurationError(f"{backup} is no backup: it has not all of {', '.join(names)}") from error
        if any(member is None for member in members.values()):
            raise ConfigurationError(f"{backup} is no backup: it has something else than files in it")
        yield {name: member for name, member in members.items() if member is not None}  # type: ignore[misc] # IO[bytes]


def _write_missing(state: Path, name: str, manifest: Manifest, files: Mapping[str, BinaryIO]) -> tuple[Path, ...]:
    path = state / name
    if path.exists():
        return ()
    if write_file(path, files[name]) != manifest.files[name]:
        path.unlink()
        raise ConfigurationError(f"the backup's {name} is not what its manifest says; it was damaged")
    return (path,)


def _require_same_log(settings: Settings, manifest: Manifest) -> None:
    if settings.audit.origin != manifest.origin:
        raise ConfigurationError(
            f"the backup is of the log {manifest.origin}, but `audit.origin` in the settings is "
            f"{settings.audit.origin}: is it the right folder?"
        )


def _differs(path: Path, entry: FileEntry) -> bool:
    return hash_file(path) != entry


def _swap(
    settings: Settings, manifest: Manifest, source: BinaryIO, progress: Progress, *, is_forced: bool
) -> tuple[Path, Path | None]:
    database = settings.store_file
    if database.exists() and not is_forced:
        raise ConfigurationError(
            f"{database} is there ({_described(database)}); the backup of {manifest.time} has {manifest.size} records. "
            "Say --force to put it in place: the store that is there is kept aside"
        )
    arriving = database.with_name(f"{database.name}.restoring")
    arriving.unlink(missing_ok=True)
    try:
        if write_file(arriving, source, progress, manifest.files[STORE].bytes) != manifest.files[STORE]:
            raise ConfigurationError(f"the backup's {STORE} is not what its manifest says; it was damaged")
        progress("checking the store")
        _require_state(require_whole(arriving), manifest)
        set_aside = _set_aside(database) if database.exists() else None
        # Atomic: at every moment there is the old store or the new one.
        arriving.replace(database)
        sync_folder(database.parent)
    finally:
        arriving.unlink(missing_ok=True)
    return database, set_aside


def _require_state(state: StoreState, manifest: Manifest) -> None:
    size, root = state.head.size, state.head.root_hash.hex()
    if (size, root) != (manifest.size, manifest.root):
        raise ConfigurationError(
            f"the backup's log has {size} records (root {root}), but its manifest says {manifest.size} "
            f"(root {manifest.root})"
        )


def _set_aside(database: Path) -> Path:
    """Keep the old store under another name, with what its WAL may still hold."""
    _take_in_wal(database)
    kept = database.with_name(f"{database.name}.before-restore")
    number = 1
    while kept.exists():
        number += 1
        kept = database.with_name(f"{database.name}.before-restore-{number}")
    kept.hardlink_to(database)
    for suffix in _SIDE_FILES:
        # A WAL that stayed would be applied to the store that comes.
        side = Path(f"{database}{suffix}")
        if side.exists():
            side.rename(f"{kept}{suffix}")
    sync_folder(database.parent)
    return kept


def _take_in_wal(database: Path) -> None:
    # A store too damaged for it is kept with its WAL beside it.
    with suppress(sqlite3.Error), closing(sqlite3.connect(database, timeout=5)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _described(database: Path) -> str:
    try:
        with closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True, timeout=5)) as connection:
            (size,) = connection.execute("SELECT log_size FROM appliance").fetchone()
    except (sqlite3.Error, TypeError):
        return "its log cannot be read"
    return f"with {size} records"


def _ask_token(config: Path, database: Path) -> tuple[int | None, str, Contradiction | None]:
    """What the token remembers, why it could not be asked, and whether the restored log contradicts it."""
    try:
        remembered = remembered_in(probe_token(config))
    except ProbeError as error:
        return None, str(error), None
    if remembered is None:
        return None, "", None
    return remembered.size, "", compare(remembered, *read_heads(database, remembered.size))
