"""Tables as they are after the newest migration. Columns are always named, never `SELECT *`."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    UniqueConstraint,
    false,
)

metadata = MetaData()

# SQLite gives only INTEGER columns its fast row id.
_Sequence = BigInteger().with_variant(Integer, "sqlite")

# The one row that every commit reads and most commits write: where the log stands, and which epoch is in force.
appliance = Table(
    "appliance",
    metadata,
    Column("id", Integer, CheckConstraint("id = 1"), primary_key=True),
    Column("epoch", BigInteger, nullable=False),
    Column("log_size", BigInteger, nullable=False),
    Column("log_edge", LargeBinary, nullable=False),
    Column("last_leaf", LargeBinary, nullable=False),
    Column("last_time", BigInteger, nullable=False),
    # Records below this one were sealed: they are in an archive, and their hashes in tree_tiles.
    Column("first_sequence", BigInteger, nullable=False, server_default="0"),
)

audit_records = Table(
    "audit_records",
    metadata,
    Column("sequence", _Sequence, primary_key=True, autoincrement=False),
    Column("record", LargeBinary, nullable=False),
)

policy_revisions = Table(
    "policy_revisions",
    metadata,
    Column("revision", Integer, primary_key=True, autoincrement=False),
    Column("document", LargeBinary, nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("publish_time", BigInteger, nullable=False),
    Column("publisher", String(512), nullable=False),
    Column("comment", String(1000), nullable=False),
)

keys = Table(
    "keys",
    metadata,
    Column("key_id", String(63), primary_key=True),
    Column("algorithm", String(64), nullable=False),
    Column("create_time", BigInteger, nullable=False),
    # NULL while the first version is being made.
    Column("primary_number", Integer),
    Column("principal", String(512), nullable=False),
    Column("request_id", String(36), nullable=False),
    # The fields of RotationPolicy that are not 0, as JSON.
    Column("rotation_policy", String, nullable=False, server_default="{}"),
    Column("revision", Integer, nullable=False, server_default="1"),
)

key_versions = Table(
    "key_versions",
    metadata,
    Column("key_id", String(63), ForeignKey("keys.key_id"), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("cka_id", LargeBinary, nullable=False, unique=True),
    Column("state", String(32), nullable=False),
    Column("create_time", BigInteger, nullable=False),
    # NULL while the pair is being made.
    Column("public_key", LargeBinary),
    Column("local", Boolean, nullable=False),
    Column("always_sensitive", Boolean, nullable=False),
    Column("never_extractable", Boolean, nullable=False),
    Column("origin", String(16), nullable=False, server_default="GENERATED"),
    Column("allow_unprotected", Boolean, nullable=False, server_default=false()),
    Column("activate_time", BigInteger),
    Column("deactivate_time", BigInteger),
    Column("destroy_time", BigInteger),
    Column("scheduled_from", String(32)),
    Column("is_destroying", Boolean, nullable=False, server_default=false()),
    Column("missing_time", BigInteger),
    Column("certificate_chain", String, nullable=False, server_default=""),
    Column("signature_count", BigInteger, nullable=False, server_default="0"),
    Column("revision", Integer, nullable=False, server_default="1"),
)

rotations = Table(
    "rotations",
    metadata,
    Column("sequence", _Sequence, primary_key=True, autoincrement=False),
    Column("key_id", String(63), ForeignKey("keys.key_id"), nullable=False),
    Column("number", Integer, nullable=False),
    Column("principal", String(512), nullable=False),
    Column("request_id", String(36), nullable=False),
    Column("reason", String(1000), nullable=False),
    Column("start_time", BigInteger, nullable=False),
    Column("activate_time", BigInteger, nullable=False),
    Column("publish_lead_us", BigInteger, nullable=False),
    Column("overlap_us", BigInteger, nullable=False),
    Column("continuity_time", BigInteger),
    Column("is_vouched", Boolean, nullable=False),
    # NULL while it is under way.
    Column("finish_time", BigInteger),
    Column("failure", String(200), nullable=False),
)

# Two rotations of one key at once are a fault that the database itself refuses.
Index(
    "rotations_under_way",
    rotations.c.key_id,
    unique=True,
    sqlite_where=rotations.c.finish_time.is_(None),
    postgresql_where=rotations.c.finish_time.is_(None),
)

# Made, or perhaps made, for rotations that were called off; a row goes when its pair surely is not on the token.
unwanted_pairs = Table(
    "unwanted_pairs",
    metadata,
    Column("cka_id", LargeBinary, primary_key=True),
    Column("algorithm", String(64), nullable=False),
    Column("create_time", BigInteger, nullable=False),
)

continuity_statements = Table(
    "continuity_statements",
    metadata,
    Column("sequence", _Sequence, primary_key=True, autoincrement=False),
    Column("key_id", String(63), ForeignKey("keys.key_id"), nullable=False, index=True),
    Column("old_number", Integer, nullable=False),
    Column("new_number", Integer, nullable=False),
    Column("signed_by_old", String, nullable=False),
    Column("signed_by_new", String, nullable=False),
)

leases = Table(
    "leases",
    metadata,
    Column("name", String(32), primary_key=True),
    Column("holder", String(64), nullable=False),
    Column("expire_time", BigInteger, nullable=False),
)

key_commands = Table(
    "key_commands",
    metadata,
    Column("principal", String(512), primary_key=True),
    Column("request_id", String(36), primary_key=True),
    # Empty: the id is taken by a command that nobody can repeat.
    Column("fingerprint", LargeBinary, nullable=False),
    Column("create_time", BigInteger, nullable=False),
)

quota_usage = Table(
    "quota_usage",
    metadata,
    Column("counter", String(1200), primary_key=True),
    # (bucket number, count) pairs as JSON, oldest first.
    Column("buckets", String, nullable=False),
)

sign_requests = Table(
    "sign_requests",
    metadata,
    # Sequence of the newest `sign.authorized`: rows are in order of time, so the oldest are found without an index.
    Column("sequence", _Sequence, primary_key=True, autoincrement=False),
    # request_id and principal in one column: one index probe per request in `IN (...)`.
    Column("request_key", String(560), nullable=False, unique=True),
    Column("fingerprint", LargeBinary, nullable=False),
    Column("state", String(16), nullable=False),
    Column("version", String(100), nullable=False),
    Column("policy_revision", Integer, nullable=False),
    Column("authorize_time", BigInteger, nullable=False),
    Column("expire_time", BigInteger, nullable=False),
    Column("completed_sequence", BigInteger, nullable=False),
    Column("signature", LargeBinary, nullable=False),
)

# Recovery's one question; holds only what is under way, so it stays small however large the table grows.
Index(
    "sign_requests_authorized",
    sign_requests.c.sequence,
    sqlite_where=sign_requests.c.state == "AUTHORIZED",
    postgresql_where=sign_requests.c.state == "AUTHORIZED",
)

# Full tiles of 256 hashes (C2SP tlog-tiles); a row is written once. Level 0 has leaf hashes.
tree_tiles = Table(
    "tree_tiles",
    metadata,
    Column("level", Integer, primary_key=True, autoincrement=False),
    Column("number", _Sequence, primary_key=True, autoincrement=False),
    # Merkle tree hash of the tile: its entry in the level above.
    Column("root", LargeBinary, nullable=False),
    Column("hashes", LargeBinary, nullable=False),
)

# What kinds of records there are, so that a filter finds the tiles it has to look through.
record_kinds = Table(
    "record_kinds",
    metadata,
    Column("kind", Integer, primary_key=True),
    Column("type", String(64), nullable=False),
    Column("key", String(100), nullable=False),
    Column("principal", String(512), nullable=False),
    UniqueConstraint("type", "key", "principal"),
)

kind_tiles = Table(
    "kind_tiles",
    metadata,
    Column("kind", Integer, primary_key=True, autoincrement=False),
    Column("tile", _Sequence, primary_key=True, autoincrement=False),
    sqlite_with_rowid=False,
)

# First four bytes of the SHA-256 of each record's request_id, and of each signature_sha256, of one full level-0 tile.
tile_prefixes = Table(
    "tile_prefixes",
    metadata,
    Column("tile", _Sequence, primary_key=True, autoincrement=False),
    Column("request_ids", LargeBinary, nullable=False),
    Column("signatures", LargeBinary, nullable=False),
)

checkpoints = Table(
    "checkpoints",
    metadata,
    Column("size", _Sequence, primary_key=True, autoincrement=False),
    Column("root", LargeBinary, nullable=False),
    Column("time", BigInteger, nullable=False),
    # Empty until the token has signed it.
    Column("note", String, nullable=False),
    Column("witnesses", Integer, nullable=False),
)

# The newest that enough witnesses cosigned is found without looking through all that they did not.
Index("checkpoints_witnesses", checkpoints.c.witnesses, checkpoints.c.size)

# Refusals that got no record of their own yet: counted durably, so that a flood costs no disk and no count is lost.
denial_totals = Table(
    "denial_totals",
    metadata,
    Column("principal", String(512), primary_key=True),
    Column("key", String(100), primary_key=True),
    Column("reason", String(64), primary_key=True),
    Column("count", BigInteger, nullable=False),
    # When the first of them, and the record before them, was written.
    Column("since", BigInteger, nullable=False),
)
