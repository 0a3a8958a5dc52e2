"""Statements of the hot path: values go where they belong, and errors are SQLAlchemy's."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import (
    Column,
    Connection,
    Integer,
    MetaData,
    Table,
    Text,
    bindparam,
    create_engine,
    insert,
    select,
    update,
)
from sqlalchemy.exc import IntegrityError, NoResultFound

from hsmsigner.store.prepared import Prepared, PreparedLookup

_TABLE = Table("things", MetaData(), Column("id", Integer, primary_key=True), Column("name", Text, unique=True))
_INSERT = Prepared(insert(_TABLE), ("name", "id"))
_ALL = Prepared(select(_TABLE.c.id, _TABLE.c.name).order_by(_TABLE.c.id))


@pytest.fixture
def connection() -> Iterator[Connection]:
    with create_engine("sqlite://", hide_parameters=True).connect() as connection:
        _TABLE.create(connection)
        _INSERT.run(connection, [(f"thing {number}", number) for number in range(9)])
        yield connection


def test_values_go_where_their_names_say(connection: Connection) -> None:
    statement = update(_TABLE).where(_TABLE.c.id == bindparam("of_id")).values(name=bindparam("new_name"))
    rename = Prepared(statement, ("of_id", "new_name"))
    rename.run(connection, [(3, "three"), (4, "four")])
    assert _ALL.fetch(connection)[2:6] == [(2, "thing 2"), (3, "three"), (4, "four"), (5, "thing 5")]


@pytest.mark.parametrize("count", range(1, 10))
def test_rows_among_any_number_of_values_come_once_each(connection: Connection, count: int) -> None:
    among = PreparedLookup(select(_TABLE.c.id), _TABLE.c.name)
    found = among.fetch(connection, [f"thing {number}" for number in range(count)])
    assert sorted(found) == [(number,) for number in range(count)]


def test_rows_among_more_values_than_one_statement_takes_come_once_each(connection: Connection) -> None:
    among = PreparedLookup(select(_TABLE.c.id), _TABLE.c.name)
    found = among.fetch(connection, [f"thing {number}" for number in reversed(range(40_000))])
    assert sorted(found) == [(number,) for number in range(9)]


def test_an_error_of_the_driver_is_sqlalchemys_and_holds_no_value(connection: Connection) -> None:
    with pytest.raises(IntegrityError) as caught:
        _INSERT.run(connection, [("a secret value", 1)])
    assert "a secret value" not in str(caught.value)
    assert "UNIQUE" in str(caught.value)


def test_one_row_is_one_row(connection: Connection) -> None:
    with pytest.raises(NoResultFound):
        _ALL.fetch_one(connection)
