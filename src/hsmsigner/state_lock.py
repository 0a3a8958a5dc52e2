"""One appliance per state folder: the folder itself is locked, so that no file in it can be deleted to let two in."""

from __future__ import annotations

import fcntl
import os
import stat
from pathlib import Path

from hsmsigner.config import Settings
from hsmsigner.errors import ConfigurationError


def take_lock(settings: Settings) -> int:
    """Lock the state folder; the descriptor is handed down, so the lock lives as long as any process of ours.

    Raises:
        ConfigurationError: another appliance holds it (names its process), or something lies in the way in `run/`.
    """
    try:
        settings.run_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        _clear_the_way(settings.run_dir)
        descriptor = _lock(settings.state_dir, fcntl.LOCK_EX)
        if descriptor is None:
            raise ConfigurationError(
                f"another appliance (process {_written_holder(settings)}) runs on {settings.state_dir}; stop it first, "
                "or give this one a state folder of its own"
            )
        _holder_file(settings).write_text(f"{os.getpid()}\n")
    except OSError as error:
        raise ConfigurationError(f"cannot use {error.filename}: {error.strerror}") from error
    return descriptor


def holder_of(settings: Settings) -> str | None:
    """The process that holds the state folder; None when nobody does."""
    try:
        descriptor = _lock(settings.state_dir, fcntl.LOCK_SH)
    except OSError:
        return None
    if descriptor is None:
        return _written_holder(settings)
    os.close(descriptor)
    return None


def _lock(folder: Path, kind: int) -> int | None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def _holder_file(settings: Settings) -> Path:
    return settings.run_dir / "lock"


def _written_holder(settings: Settings) -> str:
    try:
        return _holder_file(settings).read_text("ascii")[:20].strip() or "unknown"
    except (OSError, UnicodeDecodeError):
        return "unknown"


def _clear_the_way(run_dir: Path) -> None:
    """See that `run/` holds plain files and sockets only: a symlink there would have us write somewhere else."""
    for entry in run_dir.iterdir():
        mode = entry.lstat().st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISSOCK(mode)):
            raise ConfigurationError(f"{entry} is neither a plain file nor a socket; remove it")
