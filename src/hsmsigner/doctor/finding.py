"""What a check says."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, unique


@unique
class Level(Enum):
    """FAULT keeps the appliance from working; WARNING will, or is not safe."""

    OK = "OK"
    WARNING = "WARNING"
    FAULT = "FAULT"


@dataclass(frozen=True, slots=True)
class Finding:
    """One result: `check` names what was looked at, `way_out` what to do about it (empty when OK)."""

    level: Level
    check: str
    message: str
    way_out: str = ""


def fine(check: str, message: str) -> Finding:
    """Nothing to do."""
    return Finding(Level.OK, check, message)


def warning(check: str, message: str, way_out: str) -> Finding:
    """Works now."""
    return Finding(Level.WARNING, check, message, way_out)


def fault(check: str, message: str, way_out: str) -> Finding:
    """Does not work."""
    return Finding(Level.FAULT, check, message, way_out)
