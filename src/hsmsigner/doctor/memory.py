"""The log against what the token remembers of it: whether the store was rolled back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from sqlalchemy import create_engine
from sqlalchemy.exc import SQLAlchemyError

from hsmsigner.config import Settings
from hsmsigner.doctor.finding import Finding, fault, fine, warning
from hsmsigner.operations.contradiction import compare
from hsmsigner.operations.ports import TreeHead
from hsmsigner.store.damage import LogDamagedError
from hsmsigner.store.state import read_size
from hsmsigner.store.tree import tree_of
from hsmsigner.transparency.merkle import EMPTY_ROOT

_CHECK = "rollback"
_SQLITE = "sqlite:///"


def check_memory(settings: Settings, remembered: TreeHead | None) -> Iterator[Finding]:
    """Compare the store with what the token remembers; the store is only read."""
    if not settings.store_url.startswith(_SQLITE):
        yield warning(_CHECK, "the store is not SQLite; it is not compared with the token", "see the appliance's log")
        return
    database = Path(settings.store_url.removeprefix(_SQLITE))
    try:
        found, root_then = _read(database, 0 if remembered is None else remembered.size)
    except (SQLAlchemyError, LogDamagedError) as error:
        what = "damaged" if isinstance(error, LogDamagedError) else "not one this program can read, or was never opened"
        yield fault(_CHECK, f"{database} cannot be compared with the token: its log is {what}", "restore a backup")
        return
    if remembered is None:
        yield _nothing_remembered(found)
        return
    contradiction = compare(remembered, found, root_then)
    if contradiction is not None:
        yield fault(_CHECK, contradiction.what, contradiction.ways_out)
    else:
        yield fine(
            _CHECK, f"the log has {found.size} records and begins with the {remembered.size} the token remembers"
        )


def _nothing_remembered(found: TreeHead) -> Finding:
    if not found.size:
        return fine(_CHECK, "the log is new, and the token remembers nothing of it")
    return warning(
        _CHECK,
        f"the token remembers nothing of this log, which has {found.size} records",
        "is it the token that was used with this store? If it is new, its keys are new too; the next start says it in "
        "the log (`log.memory_missing`) and has it remember",
    )


def _read(database: Path, size_then: int) -> tuple[TreeHead, bytes]:
    """The log's head, and its root when it had that size (empty when it never had)."""
    if not database.exists():
        return TreeHead(0, EMPTY_ROOT), EMPTY_ROOT if not size_then else b""
    # mode=ro: a doctor must not make or change a store.
    engine = create_engine(f"sqlite:///file:{database}?mode=ro&uri=true", hide_parameters=True)
    try:
        with engine.connect() as connection:
            size = read_size(connection)
            head = TreeHead(size, tree_of(connection, size).root())
            return head, tree_of(connection, size_then).root() if size_then <= size else b""
    finally:
        engine.dispose()
