"""The log can be proven: tiles of its tree, what finds records, checkpoints; and exact totals of floods of refusals."""

import sqlalchemy as sa
from alembic import op

from hsmsigner.store.migrations.backfill_0003 import fill

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add the tables, and the tiles of the log there is."""
    sequence = sa.BigInteger().with_variant(sa.Integer, "sqlite")
    op.add_column("appliance", sa.Column("first_sequence", sa.BigInteger, nullable=False, server_default="0"))
    op.create_table(
        "tree_tiles",
        sa.Column("level", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("number", sequence, primary_key=True, autoincrement=False),
        sa.Column("root", sa.LargeBinary, nullable=False),
        sa.Column("hashes", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "record_kinds",
        sa.Column("kind", sa.Integer, primary_key=True),
        sa.Column("type", sa.String(64), nullable=False),
        sa.Column("key", sa.String(100), nullable=False),
        sa.Column("principal", sa.String(512), nullable=False),
        sa.UniqueConstraint("type", "key", "principal"),
    )
    op.create_table(
        "kind_tiles",
        sa.Column("kind", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("tile", sequence, primary_key=True, autoincrement=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "tile_prefixes",
        sa.Column("tile", sequence, primary_key=True, autoincrement=False),
        sa.Column("request_ids", sa.LargeBinary, nullable=False),
        sa.Column("signatures", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "checkpoints",
        sa.Column("size", sequence, primary_key=True, autoincrement=False),
        sa.Column("root", sa.LargeBinary, nullable=False),
        sa.Column("time", sa.BigInteger, nullable=False),
        sa.Column("note", sa.String, nullable=False),
        sa.Column("witnesses", sa.Integer, nullable=False),
    )
    op.create_index("checkpoints_witnesses", "checkpoints", ["witnesses", "size"])
    op.create_table(
        "denial_totals",
        sa.Column("principal", sa.String(512), primary_key=True),
        sa.Column("key", sa.String(100), primary_key=True),
        sa.Column("reason", sa.String(64), primary_key=True),
        sa.Column("count", sa.BigInteger, nullable=False),
        sa.Column("since", sa.BigInteger, nullable=False),
    )
    fill(op.get_bind())
