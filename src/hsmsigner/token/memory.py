"""What the token remembers of a log: its size and root, in a private data object (PKCS#11 v3.1 section 4.5).

A store can be replaced by an older copy of itself; the token cannot, and so it notices. The new object is made before
the old ones are destroyed: a crash between leaves several, never none.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Any, Self

from pkcs11.constants import Attribute, ObjectClass
from pkcs11.exceptions import PKCS11Error
from pkcs11.types import Object

from hsmsigner.token.faults import TokenError
from hsmsigner.token.sessions import TokenSession

_LOGGER = logging.getLogger(__name__)

APPLICATION = "hsmsigner"
# Small devices keep labels of 40 bytes (YubiHSM2).
_LABEL_BYTES = 40
ROOT_BYTES = 32


class MemoryNewerError(Exception):
    """The token remembers a larger log, or another one of the same size; nothing was changed."""


@dataclass(frozen=True, slots=True)
class LogMemory:
    """Size and root of a log. `rollbacks` counts those that were accepted: the smaller log then is the newer."""

    origin: str
    size: int
    root_hash: bytes
    rollbacks: int = 0

    def encode(self) -> bytes:
        """The object's CKA_VALUE: compact JSON."""
        fields = {"origin": self.origin, "size": self.size, "root": self.root_hash.hex(), "rollbacks": self.rollbacks}
        return json.dumps(fields, separators=(",", ":"), ensure_ascii=False).encode()

    @classmethod
    def decode(cls, value: bytes) -> Self | None:
        """Read CKA_VALUE; None for what we did not write."""
        try:
            fields: Any = json.loads(value)
            origin, root_hash = fields["origin"], bytes.fromhex(fields["root"])
            counts = fields["size"], fields["rollbacks"]
        except (ValueError, TypeError, KeyError):
            return None
        is_whole = isinstance(origin, str) and all(type(count) is int and count >= 0 for count in counts)
        return cls(origin, counts[0], root_hash, counts[1]) if is_whole and len(root_hash) == ROOT_BYTES else None

    @property
    def rank(self) -> tuple[int, int]:
        """The highest of several is the one that counts."""
        return self.rollbacks, self.size


class TokenMemories:
    """The memories on one token, through whatever session the caller's thread owns."""

    def __init__(self, writing: Lock) -> None:
        # Shared with whatever else writes to the token; see `TokenKeys`.
        self._writing = writing

    def recall(self, session: TokenSession, origin: str) -> LogMemory | None:
        """What the token shows to remember of this log; the caller judges whether None can be believed.

        Raises:
            TokenError: the token could not be asked.
        """
        # An object that is destroyed while it is read would look like a token that was lost.
        with self._writing:
            return _highest([memory for _, memory in _find(session, origin)])

    def remember(self, session: TokenSession, origin: str, size: int, root_hash: bytes, *, is_rollback: bool) -> None:
        """Remember a log of `size` records with this root (32 bytes), and nothing older of the same origin.

        Objects that are not ours, or that we cannot read, are left alone.

        Raises:
            MemoryNewerError: a larger log is remembered, or another of that size, and this is no accepted rollback.
            TokenError: the token could not be asked, or stopped halfway: then the new, the old or both are remembered.
        """
        with self._writing:
            found = _find(session, origin)
            before = _highest([memory for _, memory in found])
            rollbacks = before.rollbacks if before is not None else 0
            if before is not None and _is_rollback(before, size, root_hash):
                if not is_rollback:
                    raise MemoryNewerError(f"the token remembers {before.size} records, it was told {size}")
                rollbacks += 1
            wanted = LogMemory(origin, size, root_hash, rollbacks)
            if wanted != before:
                _create(session, wanted)
            keeper = next((memory_object for memory_object, memory in found if memory == wanted), None)
            _destroy([memory_object for memory_object, _ in found if memory_object is not keeper])


def _is_rollback(before: LogMemory, size: int, root_hash: bytes) -> bool:
    return size < before.size or (size == before.size and root_hash != before.root_hash)


def _highest(memories: Sequence[LogMemory]) -> LogMemory | None:
    return max(memories, key=lambda memory: memory.rank, default=None)


def _label(origin: str) -> str:
    if len(origin.encode()) <= _LABEL_BYTES:
        return origin
    return f"log {hashlib.sha256(origin.encode()).hexdigest()[:32]}"


def _find(session: TokenSession, origin: str) -> list[tuple[Object, LogMemory]]:
    template = {
        Attribute.CLASS: ObjectClass.DATA,
        # An object that is not private can be made without the PIN, and would say whatever suits an older store.
        Attribute.PRIVATE: True,
        Attribute.APPLICATION: APPLICATION,
        Attribute.LABEL: _label(origin),
    }
    found = []
    for candidate in session.find_all(template):
        try:
            memory = LogMemory.decode(bytes(candidate[Attribute.VALUE]))
        except PKCS11Error as error:
            raise TokenError.from_binding("C_GetAttributeValue", error) from error
        if memory is None:
            _LOGGER.warning("a data object of ours on the token cannot be read; it is left alone")
        elif memory.origin == origin:
            found.append((candidate, memory))
    return found


def _create(session: TokenSession, memory: LogMemory) -> None:
    template = {
        Attribute.CLASS: ObjectClass.DATA,
        Attribute.TOKEN: True,
        Attribute.PRIVATE: True,
        Attribute.APPLICATION: APPLICATION,
        Attribute.LABEL: _label(memory.origin),
        Attribute.VALUE: memory.encode(),
    }
    try:
        session.binding.create_object(template)
    except PKCS11Error as error:
        # A token that is full or read-only goes on signing, and says GENERAL_ERROR as a dying one does: which is it?
        session.check_alive()
        raise TokenError(f"C_CreateObject: {type(error).__name__}", is_lost=False) from error


def _destroy(old: Sequence[Object]) -> None:
    for memory_object in old:
        try:
            memory_object.destroy()
        except PKCS11Error as error:
            # It is outranked, so it does no harm; the next time it is tried again.
            _LOGGER.warning("an old memory of the log could not be destroyed (%s)", type(error).__name__)
