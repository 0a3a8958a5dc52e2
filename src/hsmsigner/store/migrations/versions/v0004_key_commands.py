"""Which command a request_id of KeyService stands for."""

import hashlib
import json
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

_KEYS = sa.text(
    "SELECT keys.principal, keys.request_id, keys.key_id, keys.algorithm, keys.create_time, key_versions.origin"
    " FROM keys JOIN key_versions ON key_versions.key_id = keys.key_id AND key_versions.number = 1"
    " ORDER BY keys.create_time"
)


def upgrade() -> None:
    """Add the table, and the commands that made the keys there are."""
    table = op.create_table(
        "key_commands",
        sa.Column("principal", sa.String(512), primary_key=True),
        sa.Column("request_id", sa.String(36), primary_key=True),
        sa.Column("fingerprint", sa.LargeBinary, nullable=False),
        sa.Column("create_time", sa.BigInteger, nullable=False),
    )
    found: dict[tuple[str, str], dict[str, object]] = {}
    for row in op.get_bind().execute(_KEYS):
        # Releases before this one let an id make two keys: it stands for the first.
        found.setdefault(
            (row.principal, row.request_id),
            {
                "principal": row.principal,
                "request_id": row.request_id,
                "fingerprint": _fingerprint(row),
                "create_time": row.create_time,
            },
        )
    op.bulk_insert(table, list(found.values()))


def _fingerprint(row: sa.Row[Any]) -> bytes:
    if row.origin != "GENERATED":
        # Not all of an adoption is stored: its id is taken, and stands for nothing that is sent again.
        return b""
    text = json.dumps(["CreateKey", f"keys/{row.key_id}", row.algorithm], separators=(",", ":"))
    return hashlib.sha256(text.encode()).digest()
