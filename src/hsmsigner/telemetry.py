"""The operational log: one JSON object per line on stderr. Never messages, signatures or PINs; not the audit log."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

# What every LogRecord has; the rest came in by `extra=` and is ours to print.
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_HIDDEN = ("pin", "secret", "password", "private_key", "message_bytes", "body")


class JsonFormatter(logging.Formatter):
    """Time, level, logger, process role and text, then the record's own fields."""

    def __init__(self, role: str) -> None:
        super().__init__()
        self._role = role

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "process": self._role,
            "logger": record.name,
            "text": record.getMessage(),
        }
        for name, value in vars(record).items():
            if name not in _STANDARD:
                line[name] = _printable(name, value)
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


def configure_logging(level: str, role: str) -> None:
    """Send this process's log to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter(role))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    # Their INFO lines speak of migrations and channels, not of the appliance.
    for noisy in ("alembic", "sqlalchemy", "grpc", "asyncio"):
        logging.getLogger(noisy).setLevel(max(logging.WARNING, logging.getLevelName(level)))


def _printable(name: str, value: Any) -> Any:
    if isinstance(value, bytes | bytearray | memoryview) or any(word in name.lower() for word in _HIDDEN):
        return "(hidden)"
    if isinstance(value, Mapping):
        return {str(key): _printable(str(key), part) for key, part in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_printable(name, part) for part in value]
    return value
