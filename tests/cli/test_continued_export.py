"""An export is continued by its own log alone: what is in the folder may be the only trace of what was set back."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hsmsigner.cli.audit_export import _require_growth
from hsmsigner.cli.export_folder import ExportFolder
from hsmsigner.verifier import VerificationError
from tests.verifier.export_writer import NoteKey, Tree, Writer, leaf
from tests.verifier.logs import honest, rewritten

LOG = NoteKey()
RECORDS = honest(20)
OTHER = rewritten(RECORDS, lambda fields: fields[3].update(signature_sha256="f" * 64))


class Server:
    """Gives proofs of a log as an appliance does."""

    def __init__(self, records: Sequence[bytes]) -> None:
        self._tree, self.size = Tree([leaf(record) for record in records]), len(records)
        self.root_hash = self._tree.root(0, self.size)

    def get_consistency_proof(self, old: int, new: int) -> Any:
        return SimpleNamespace(hashes=self._tree.consistency(old, 0, new) if old < new else [])


def fault_of(exported: Sequence[bytes], log: Sequence[bytes], folder: Path) -> str | None:
    target, server = ExportFolder(Writer(exported, [LOG]).write(folder / "export")), Server(log)
    try:
        _require_growth(server, target, server.size, server.root_hash)  # type: ignore[arg-type]  # all it uses
    except VerificationError as error:
        return error.fault
    return None


@pytest.mark.parametrize("size", [1, 20, 32, 41, 42])
def test_the_log_it_is_of_goes_on(size: int, tmp_path: Path) -> None:
    assert fault_of(RECORDS[:size], RECORDS, tmp_path) is None


@pytest.mark.parametrize(
    ("exported", "log", "fault"),
    [(RECORDS, RECORDS[:41], "rollback"), (RECORDS, OTHER, "fork"), (RECORDS[:20], OTHER, "fork")],
    ids=["set back", "another of its size", "another that grew"],
)
def test_a_log_that_does_not_begin_with_it_writes_nothing(
    exported: Sequence[bytes], log: Sequence[bytes], fault: str, tmp_path: Path
) -> None:
    assert fault_of(exported, log, tmp_path) == fault


def test_an_empty_folder_is_begun(tmp_path: Path) -> None:
    server = Server(RECORDS)
    _require_growth(server, ExportFolder(tmp_path), server.size, server.root_hash)  # type: ignore[arg-type]
