"""What it means when the log is not the one that the token remembers. Pure; said by the appliance and by its doctor."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, unique

from hsmsigner.operations.ports import TreeHead


@unique
class ContradictionKind(Enum):
    """How a log can contradict what the token remembers of it."""

    ROLLBACK = "rollback"  # it has fewer records
    FORK = "fork"  # it has as many or more, but they do not begin with the remembered ones


@dataclass(frozen=True, slots=True)
class Contradiction:
    """What the token remembers, what was found, and for a fork the root that the log had at the remembered size."""

    kind: ContradictionKind
    remembered: TreeHead
    found: TreeHead
    root_then: bytes = b""

    @property
    def what(self) -> str:
        """Both figures."""
        remembered = f"the token remembers {_shown(self.remembered.size, self.remembered.root_hash)}"
        if self.kind is ContradictionKind.ROLLBACK:
            lost = self.remembered.size - self.found.size
            found = _shown(self.found.size, self.found.root_hash)
            return f"{remembered}, but the log has only {found}: at least {lost} records are missing"
        then = _shown(self.remembered.size, self.root_then)
        return f"{remembered}, but the log began with {then}: its records were changed, or it is another log"

    @property
    def ways_out(self) -> str:
        """What an operator can do."""
        return (
            "put the store back that was used last (its file, or the newest backup with `hsmsigner restore`); or, if "
            "it is lost for good, start with `hsmsigner serve --accept-rollback REASON`: that is recorded in the log. "
            "Quotas then forget what the lost records counted: in the windows they fall into, limits may be exceeded"
        )

    def __str__(self) -> str:
        return f"{self.what}. Nothing is signed. Way out: {self.ways_out}"


def compare(remembered: TreeHead | None, found: TreeHead, root_then: bytes) -> Contradiction | None:
    """Hold a log against what the token remembers; None when they agree, or when it remembers nothing.

    `root_then` is the log's root at the remembered size, and not looked at when the log is smaller than that.
    """
    if remembered is None:
        return None
    if remembered.size > found.size:
        return Contradiction(ContradictionKind.ROLLBACK, remembered, found)
    if remembered.root_hash != root_then:
        return Contradiction(ContradictionKind.FORK, remembered, found, root_then)
    return None


def _shown(size: int, root_hash: bytes) -> str:
    return f"{size} records (root {root_hash.hex()[:16]}…)"
