"""How the log stands, and what others tell about it: witnesses, places that checkpoints are pushed to, the token."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hsmsigner.domain.instant import Instant
from hsmsigner.operations.ports import Checkpoint, TreeHead


@dataclass(frozen=True, slots=True)
class WitnessState:
    """One witness: the newest checkpoint it cosigned (0 when none), and what it answered instead; empty when well."""

    name: str
    cosigned_size: int = 0
    cosign_time: Instant | None = None
    fault: str = ""


@dataclass(frozen=True, slots=True)
class PushState:
    """One place that checkpoints are pushed to, named without credentials."""

    target: str
    pushed_size: int = 0
    push_time: Instant | None = None
    fault: str = ""


def _none() -> tuple[()]:
    return ()


@dataclass(frozen=True, slots=True)
class LogSources:
    """Who is asked for what the log itself does not know; each answers at once, from memory."""

    quorum: int = 0
    is_fail_closed: bool = False
    witnesses: Callable[[], Sequence[WitnessState]] = _none
    pushes: Callable[[], Sequence[PushState]] = _none
    # Size that the token remembers; 0 when it remembers none.
    remembered_size: Callable[[], int] = int


@dataclass(frozen=True, slots=True)
class LogStatus:
    """All of it at one moment."""

    origin: str
    tree_head: TreeHead
    first_sequence: int
    newest_checkpoint: Checkpoint | None
    newest_witnessed: Checkpoint | None
    sources: LogSources
