"""Looking at a store that is a file without opening it for work: nothing is migrated, nothing written."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, func, select
from sqlalchemy.exc import SQLAlchemyError

from hsmsigner.operations.ports import TreeHead
from hsmsigner.store.engine import read_only
from hsmsigner.store.log import LogDamagedError, check_end
from hsmsigner.store.schema import checkpoints, policy_revisions
from hsmsigner.store.state import read_size
from hsmsigner.store.tree import tree_of
from hsmsigner.transparency.merkle import EMPTY_ROOT


class StoreUnreadableError(Exception):
    """It is damaged, or no store that this version of the program knows; the text goes on after the file's name."""


@dataclass(frozen=True, slots=True)
class StoreState:
    """What a store that was inspected holds."""

    head: TreeHead
    checkpoint_size: int
    policy_revision: int


def read_heads(database: Path, size_then: int) -> tuple[TreeHead, bytes]:
    """The log's head, and the root it had at that size (empty when it never had); an appliance may run on the store.

    Raises:
        StoreUnreadableError: it cannot be told.
    """
    if not database.exists():
        return TreeHead(0, EMPTY_ROOT), EMPTY_ROOT if not size_then else b""
    with _opened(database) as connection:
        size = read_size(connection)
        head = TreeHead(size, tree_of(connection, size).root())
        return head, tree_of(connection, size_then).root() if size_then <= size else b""


def inspect_store(database: Path) -> StoreState:
    """See that a store which nobody uses is whole, and that its log ends as it was written.

    Raises:
        StoreUnreadableError: it is not so.
    """
    # immutable: not even the index of a WAL is written beside it.
    with _opened(database, is_in_use=False) as connection:
        verdict = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar_one()
        if verdict != "ok":
            raise StoreUnreadableError(f"is damaged: {verdict}")
        check_end(connection)
        size = read_size(connection)
        head = TreeHead(size, tree_of(connection, size).root())
        newest = connection.execute(select(func.max(checkpoints.c.size)).where(checkpoints.c.note != "")).scalar()
        revision = connection.execute(select(func.max(policy_revisions.c.revision))).scalar()
        return StoreState(head, newest or 0, revision or 0)


@contextmanager
def _opened(database: Path, *, is_in_use: bool = True) -> Iterator[Connection]:
    try:
        with read_only(database, is_in_use=is_in_use) as connection:
            yield connection
    except SQLAlchemyError as error:
        raise StoreUnreadableError("is no store of this version of the program") from error
    except LogDamagedError as error:
        raise StoreUnreadableError(f"is damaged: {error}") from error
