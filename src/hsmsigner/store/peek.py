"""A look at a store from outside, without opening it for writing: for `hsmsigner doctor`."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import create_engine
from sqlalchemy.exc import SQLAlchemyError

from hsmsigner.operations.ports import TreeHead
from hsmsigner.store.damage import LogDamagedError
from hsmsigner.store.state import read_size
from hsmsigner.store.tree import tree_of
from hsmsigner.transparency.merkle import EMPTY_ROOT


class StoreUnreadableError(Exception):
    """The store cannot be read. The text says what it is, to follow "its log is"."""


def peek_at_log(database: Path, size_then: int) -> tuple[TreeHead, bytes]:
    """The log's head, and its root when it had that size (empty when it never had).

    Raises:
        StoreUnreadableError: it is damaged, or no store of this program.
    """
    if not database.exists():
        return TreeHead(0, EMPTY_ROOT), EMPTY_ROOT if not size_then else b""
    # mode=ro: a look must not make or change a store.
    engine = create_engine(f"sqlite:///file:{database}?mode=ro&uri=true", hide_parameters=True)
    try:
        with engine.connect() as connection:
            size = read_size(connection)
            head = TreeHead(size, tree_of(connection, size).root())
            return head, tree_of(connection, size_then).root() if size_then <= size else b""
    except LogDamagedError as error:
        raise StoreUnreadableError("damaged") from error
    except SQLAlchemyError as error:
        raise StoreUnreadableError("not one this program can read, or was never opened") from error
    finally:
        engine.dispose()
