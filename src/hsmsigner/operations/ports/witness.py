"""What the use cases need from those outside who are shown the checkpoints: witnesses, and places to push them to."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from enum import Enum, unique
from typing import Protocol

from hsmsigner.operations.ports.log import Checkpoint
from hsmsigner.transparency.note import SignatureLine

# Gets the size of an older tree; gives the proof that the checkpoint's tree begins with it (RFC 9162 section 2.1.4).
Prove = Callable[[int], Awaitable[Sequence[bytes]]]


@unique
class FaultKind(Enum):
    """Why somebody outside did not do what it was asked."""

    UNREACHABLE = "UNREACHABLE"  # no connection, no TLS, or the connection broke
    TIMED_OUT = "TIMED_OUT"
    # Its answer is not what the protocol says: garbage, too much, a redirect, a signature that is not one.
    BAD_ANSWER = "BAD_ANSWER"
    WRONG_SIGNATURE = "WRONG_SIGNATURE"
    # It says no, or is not well: it does not know this log or its key, or answers 4xx or 5xx for a cause of its own.
    REFUSED = "REFUSED"
    # What it saw before and what it is shown now cannot both be this log: a rollback, a fork, or a lie of its own.
    CONTRADICTED = "CONTRADICTED"


@dataclass(frozen=True, slots=True)
class Fault:
    """Why it did not work, in words an operator may read; never holds credentials or what a stranger wrote."""

    kind: FaultKind
    message: str


@dataclass(frozen=True, slots=True)
class Cosignature:
    """A signature line of a witness, verified, and its time: the witness's own, in seconds since 1970."""

    line: SignatureLine
    time_s: int


class Witness(Protocol):
    """Somebody who cosigns checkpoints that extend those it saw before. Nothing here raises for what it does."""

    @property
    def name(self) -> str:
        """Its name in signature lines; no two witnesses have the same name or the same key."""
        ...

    @property
    def line_start(self) -> str:
        """How its signature lines begin, as far as name and key id say."""
        ...

    def find_cosignature(self, note: str) -> Cosignature | None:
        """Its valid line in a note, if there is one."""
        ...

    async def add_checkpoint(self, checkpoint: Checkpoint, old_size: int, prove: Prove) -> Cosignature | Fault:
        """Ask it to cosign; `old_size` is what it is believed to have cosigned last, 0 when nobody knows.

        Ends in bounded time.

        Raises:
            SignerError, LookupError: from `prove`.
        """
        ...


class PushTarget(Protocol):
    """A place off the box that gets checkpoints."""

    @property
    def shown(self) -> str:
        """Where it is, without credentials."""
        ...

    async def push(self, checkpoint: Checkpoint) -> Fault | None:
        """Put a checkpoint there, whole or not at all; again with more cosignatures, where it was there before.

        Ends in bounded time and raises nothing.
        """
        ...
