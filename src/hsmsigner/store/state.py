"""Where the log stands: the one row of `appliance`."""

from __future__ import annotations

from sqlalchemy import Connection, literal_column, select

from hsmsigner.store.schema import appliance

# A literal and no parameter: the statement is run as it is, in every turn.
IS_THE_ROW = appliance.c.id == literal_column("1")

LOG_STATE = select(
    appliance.c.epoch, appliance.c.log_size, appliance.c.log_edge, appliance.c.last_leaf, appliance.c.last_time
).where(IS_THE_ROW)
_LOG_SIZE = select(appliance.c.log_size).where(IS_THE_ROW)
_FIRST_SEQUENCE = select(appliance.c.first_sequence).where(IS_THE_ROW)


def read_size(connection: Connection) -> int:
    """Number of records the log has, sealed ones too."""
    size: int = connection.execute(_LOG_SIZE).scalar_one()
    return size


def read_first_sequence(connection: Connection) -> int:
    """The first record that was not sealed."""
    first: int = connection.execute(_FIRST_SEQUENCE).scalar_one()
    return first
