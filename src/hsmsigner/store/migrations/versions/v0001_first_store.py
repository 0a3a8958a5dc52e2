"""The first store: log, policy, keys, usage, requests."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make every table and the one row of `appliance`."""
    sequence = sa.BigInteger().with_variant(sa.Integer, "sqlite")
    op.create_table(
        "appliance",
        sa.Column("id", sa.Integer, sa.CheckConstraint("id = 1"), primary_key=True),
        sa.Column("epoch", sa.BigInteger, nullable=False),
        sa.Column("log_size", sa.BigInteger, nullable=False),
        sa.Column("log_edge", sa.LargeBinary, nullable=False),
        sa.Column("last_leaf", sa.LargeBinary, nullable=False),
        sa.Column("last_time", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "audit_records",
        sa.Column("sequence", sequence, primary_key=True, autoincrement=False),
        sa.Column("record", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "policy_revisions",
        sa.Column("revision", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("document", sa.LargeBinary, nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("publish_time", sa.BigInteger, nullable=False),
        sa.Column("publisher", sa.String(512), nullable=False),
        sa.Column("comment", sa.String(1000), nullable=False),
    )
    op.create_table(
        "keys",
        sa.Column("key_id", sa.String(63), primary_key=True),
        sa.Column("algorithm", sa.String(64), nullable=False),
        sa.Column("create_time", sa.BigInteger, nullable=False),
        sa.Column("primary_number", sa.Integer),
        sa.Column("principal", sa.String(512), nullable=False),
        sa.Column("request_id", sa.String(36), nullable=False),
    )
    op.create_table(
        "key_versions",
        sa.Column("key_id", sa.String(63), sa.ForeignKey("keys.key_id"), primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("cka_id", sa.LargeBinary, nullable=False, unique=True),
        sa.Column("state", sa.String(32), nullable=False),
        sa.Column("create_time", sa.BigInteger, nullable=False),
        sa.Column("public_key", sa.LargeBinary),
        sa.Column("local", sa.Boolean, nullable=False),
        sa.Column("always_sensitive", sa.Boolean, nullable=False),
        sa.Column("never_extractable", sa.Boolean, nullable=False),
    )
    op.create_table(
        "quota_usage",
        sa.Column("counter", sa.String(1200), primary_key=True),
        sa.Column("buckets", sa.String, nullable=False),
    )
    op.create_table(
        "sign_requests",
        sa.Column("sequence", sequence, primary_key=True, autoincrement=False),
        sa.Column("request_key", sa.String(560), nullable=False, unique=True),
        sa.Column("fingerprint", sa.LargeBinary, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("version", sa.String(100), nullable=False),
        sa.Column("policy_revision", sa.Integer, nullable=False),
        sa.Column("authorize_time", sa.BigInteger, nullable=False),
        sa.Column("expire_time", sa.BigInteger, nullable=False),
        sa.Column("completed_sequence", sa.BigInteger, nullable=False),
        sa.Column("signature", sa.LargeBinary, nullable=False),
    )
    op.create_index(
        "sign_requests_authorized",
        "sign_requests",
        ["sequence"],
        sqlite_where=sa.text("state = 'AUTHORIZED'"),
        postgresql_where=sa.text("state = 'AUTHORIZED'"),
    )
    op.execute(
        sa.text(
            "INSERT INTO appliance (id, epoch, log_size, log_edge, last_leaf, last_time)"
            " VALUES (1, 1, 0, :edge, :leaf, 0)"
        ).bindparams(edge=b"", leaf=bytes(32))
    )
