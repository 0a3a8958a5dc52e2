"""Where the log stands: the one row of `appliance`."""

from __future__ import annotations

from sqlalchemy import Connection, select

from hsmsigner.store.schema import appliance

LOG_STATE = select(
    appliance.c.epoch, appliance.c.log_size, appliance.c.log_edge, appliance.c.last_leaf, appliance.c.last_time
).where(appliance.c.id == 1)
_LOG_SIZE = select(appliance.c.log_size).where(appliance.c.id == 1)
_FIRST_SEQUENCE = select(appliance.c.first_sequence).where(appliance.c.id == 1)


def read_size(connection: Connection) -> int:
    """Number of records the log has, sealed ones too."""
    size: int = connection.execute(_LOG_SIZE).scalar_one()
    return size


def read_first_sequence(connection: Connection) -> int:
    """The first record that was not sealed."""
    first: int = connection.execute(_FIRST_SEQUENCE).scalar_one()
    return first
