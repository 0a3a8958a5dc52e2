"""`hsmsigner backup`: store, settings and policy of an appliance, which may go on signing meanwhile."""

from __future__ import annotations

import io
import shutil
import sqlite3
import tarfile
import tempfile
from datetime import datetime
from importlib.metadata import version
from pathlib import Path

from hsmsigner.backup.copies import (
    Progress,
    copy_store,
    hash_file,
    require_whole,
    sync_folder,
    write_file,
)
from hsmsigner.backup.manifest import MANIFEST, POLICY, SETTINGS, STORE, Manifest
from hsmsigner.config import load_settings
from hsmsigner.errors import ConfigurationError

NOT_INCLUDED = (
    "the token and its keys (back it up with its vendor's means), PINs, and the TLS files with their private keys"
)


def take_backup(config: Path, out: Path, now: datetime, progress: Progress) -> tuple[Path, Manifest]:
    """Write a backup, whole or not at all; returns where it is and what it says of itself.

    A folder named `out`; one file if it ends in `.tar`; in a folder that is there already, a file named after the time.

    Raises:
        ConfigurationError: something is at `out`, the store is damaged or cannot be read, or the copy not be written.
    """
    settings = load_settings(config)
    database = settings.store_file
    if not database.exists():
        raise ConfigurationError(f"{database} does not exist: this appliance was never started")
    target = (out / f"hsmsigner-{now:%Y%m%dT%H%M%SZ}.tar" if out.is_dir() else out).absolute()
    if target.exists():
        raise ConfigurationError(f"{target} is there already; a backup never overwrites anything")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        # Built beside its place and renamed: what is found there is complete.
        building = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
        try:
            copy_store(database, building / STORE, progress)
            progress("checking the copy")
            manifest = _describe(building, config, settings.policy, settings.audit.origin, now)
            _put_in_place(building, target, progress)
        finally:
            shutil.rmtree(building, ignore_errors=True)
    except sqlite3.Error as error:
        raise ConfigurationError(f"{database} cannot be copied to {target}: {error}") from error
    except OSError as error:
        raise ConfigurationError(f"cannot write the backup {target}: {error.strerror}") from error
    return target, manifest


def _describe(building: Path, config: Path, policy: Path, origin: str, now: datetime) -> Manifest:
    state = require_whole(building / STORE)
    files = {STORE: hash_file(building / STORE)}
    for name, path in ((SETTINGS, config), (POLICY, policy)):
        with path.open("rb") as source:
            files[name] = write_file(building / name, source)
    manifest = Manifest(
        time=f"{now:%Y-%m-%dT%H:%M:%SZ}",
        version=version("hsmsigner"),
        origin=origin,
        size=state.head.size,
        root=state.head.root_hash.hex(),
        checkpoint_size=state.checkpoint_size,
        policy_revision=state.policy_revision,
        files=files,
    )
    write_file(building / MANIFEST, io.BytesIO(manifest.encode()))
    return manifest


def _put_in_place(building: Path, target: Path, progress: Progress) -> None:
    if target.suffix == ".tar":
        progress("writing the archive")
        archive = building / "archive.tar"
        write_file(archive, io.BytesIO())
        with archive.open("r+b") as file, tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
            for name in (MANIFEST, SETTINGS, POLICY, STORE):
                tar.add(building / name, name, filter=_anonymous)
        hash_file(archive)
        building = archive
    else:
        sync_folder(building)
    if target.exists():
        raise ConfigurationError(f"somebody made {target} meanwhile; a backup never overwrites anything")
    building.rename(target)
    sync_folder(target.parent)


def _anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    member.mode = 0o600
    return member
