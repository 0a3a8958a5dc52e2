"""What the store says when it is not as it was written."""

from __future__ import annotations


class LogDamagedError(Exception):
    """The log does not fit its tree: someone changed the store. The text says what does not fit."""
