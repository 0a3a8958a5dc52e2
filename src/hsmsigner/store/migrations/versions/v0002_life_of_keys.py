"""The life of keys: states and their times, rotations, continuity statements, certificates, leases."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add columns and tables. Versions made before have been ACTIVE since they were made; counting begins now."""
    op.add_column("keys", sa.Column("rotation_policy", sa.String, nullable=False, server_default="{}"))
    op.add_column("keys", sa.Column("revision", sa.Integer, nullable=False, server_default="1"))
    for column in (
        sa.Column("origin", sa.String(16), nullable=False, server_default="GENERATED"),
        sa.Column("allow_unprotected", sa.Boolean, nullable=False, server_default=sa.false()),
        sa.Column("activate_time", sa.BigInteger),
        sa.Column("deactivate_time", sa.BigInteger),
        sa.Column("destroy_time", sa.BigInteger),
        sa.Column("scheduled_from", sa.String(32)),
        sa.Column("is_destroying", sa.Boolean, nullable=False, server_default=sa.false()),
        sa.Column("missing_time", sa.BigInteger),
        sa.Column("certificate_chain", sa.String, nullable=False, server_default=""),
        sa.Column("signature_count", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("revision", sa.Integer, nullable=False, server_default="1"),
    ):
        op.add_column("key_versions", column)
    op.execute("UPDATE key_versions SET activate_time = create_time WHERE state = 'ACTIVE'")
    _create_tables()


def _create_tables() -> None:
    sequence = sa.BigInteger().with_variant(sa.Integer, "sqlite")
    op.create_table(
        "rotations",
        sa.Column("sequence", sequence, primary_key=True, autoincrement=False),
        sa.Column("key_id", sa.String(63), sa.ForeignKey("keys.key_id"), nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("principal", sa.String(512), nullable=False),
        sa.Column("request_id", sa.String(36), nullable=False),
        sa.Column("reason", sa.String(1000), nullable=False),
        sa.Column("start_time", sa.BigInteger, nullable=False),
        sa.Column("activate_time", sa.BigInteger, nullable=False),
        sa.Column("publish_lead_us", sa.BigInteger, nullable=False),
        sa.Column("overlap_us", sa.BigInteger, nullable=False),
        sa.Column("continuity_time", sa.BigInteger),
        sa.Column("is_vouched", sa.Boolean, nullable=False),
        sa.Column("finish_time", sa.BigInteger),
        sa.Column("failure", sa.String(200), nullable=False),
    )
    under_way = sa.text("finish_time IS NULL")
    op.create_index(
        "rotations_under_way",
        "rotations",
        ["key_id"],
        unique=True,
        sqlite_where=under_way,
        postgresql_where=under_way,
    )
    op.create_table(
        "continuity_statements",
        sa.Column("sequence", sequence, primary_key=True, autoincrement=False),
        sa.Column("key_id", sa.String(63), sa.ForeignKey("keys.key_id"), nullable=False, index=True),
        sa.Column("old_number", sa.Integer, nullable=False),
        sa.Column("new_number", sa.Integer, nullable=False),
        sa.Column("signed_by_old", sa.String, nullable=False),
        sa.Column("signed_by_new", sa.String, nullable=False),
    )
    op.create_table(
        "leases",
        sa.Column("name", sa.String(32), primary_key=True),
        sa.Column("holder", sa.String(64), nullable=False),
        sa.Column("expire_time", sa.BigInteger, nullable=False),
    )
