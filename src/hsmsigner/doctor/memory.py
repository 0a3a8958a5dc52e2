"""The log against what the token remembers of it: whether the store was rolled back."""

from __future__ import annotations

from collections.abc import Iterator

from hsmsigner.config import Settings
from hsmsigner.doctor.finding import Finding, fault, fine, warning
from hsmsigner.operations.contradiction import compare
from hsmsigner.operations.ports import TreeHead
from hsmsigner.store.inspection import StoreUnreadableError, read_heads

_CHECK = "rollback"


def check_memory(settings: Settings, remembered: TreeHead | None) -> Iterator[Finding]:
    """Compare the store with what the token remembers; the store is only read."""
    database = settings.store_file
    try:
        found, root_then = read_heads(database, 0 if remembered is None else remembered.size)
    except StoreUnreadableError as error:
        yield fault(_CHECK, f"{database} cannot be compared with the token: it {error}", "restore a backup")
        return
    if remembered is None:
        yield _nothing_remembered(found)
        return
    contradiction = compare(remembered, found, root_then)
    if contradiction is not None:
        yield fault(_CHECK, contradiction.what, contradiction.ways_out)
    else:
        yield fine(
            _CHECK, f"the log has {found.size} records and begins with the {remembered.size} the token remembers"
        )


def _nothing_remembered(found: TreeHead) -> Finding:
    if not found.size:
        return fine(_CHECK, "the log is new, and the token remembers nothing of it")
    return warning(
        _CHECK,
        f"the token remembers nothing of this log, which has {found.size} records",
        "is it the token that was used with this store? If it is new, its keys are new too; the next start says it in "
        "the log (`log.memory_missing`) and has it remember",
    )
