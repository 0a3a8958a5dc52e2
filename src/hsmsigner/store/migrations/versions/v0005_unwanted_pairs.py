"""Pairs that may be on the token although their rotation was called off."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Add the table."""
    op.create_table(
        "unwanted_pairs",
        sa.Column("cka_id", sa.LargeBinary, primary_key=True),
        sa.Column("algorithm", sa.String(64), nullable=False),
        sa.Column("create_time", sa.BigInteger, nullable=False),
    )
