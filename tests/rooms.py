"""An import-linter contract by which every import between rooms is forbidden that no line allows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from grimp import ImportGraph
from importlinter import Contract, ContractCheck, fields, output


class RoomsContract(Contract):
    """Who may import whom, directly: each room answers for its own.

    A line of `rooms` reads `importer: imported imported ...`, packages and modules below the root; more specific
    importers may have lines of their own, which add to those above them. A line of `libraries` reads
    `library: importer importer ...`; libraries without a line are free.
    """

    rooms = fields.ListField(subfield=fields.StringField())
    libraries = fields.ListField(subfield=fields.StringField())

    def check(self, graph: ImportGraph, verbose: bool) -> ContractCheck:  # noqa: ARG002, FBT001 - the library's signature
        """Compare every direct import with the lines."""
        faults = sorted(self._faults(graph))
        return ContractCheck(kept=not faults, metadata={"faults": faults})

    def render_broken_contract(self, check: ContractCheck) -> None:
        """Name each import that no line allows."""
        for importer, imported in check.metadata["faults"]:
            output.print_error(f"{importer} may not import {imported}")

    def _faults(self, graph: ImportGraph) -> Iterator[tuple[str, str]]:
        root = self.session_options["root_packages"][0]
        rooms, libraries = _table(self.rooms), _table(self.libraries)
        for importer in graph.find_descendants(root):
            place = importer.removeprefix(f"{root}.")
            for imported in graph.find_modules_directly_imported_by(importer):
                if imported == root:
                    continue
                if imported.startswith(f"{root}."):
                    target = imported.removeprefix(f"{root}.")
                    allowed = {place.partition(".")[0]}.union(*(rooms.get(above, ()) for above in _lineage(place)))
                    is_allowed = not allowed.isdisjoint(_lineage(target))
                else:
                    library = libraries.get(imported)
                    is_allowed = library is None or not library.isdisjoint(_lineage(place))
                if not is_allowed:
                    yield importer, imported


def _table(lines: Any) -> dict[str, frozenset[str]]:
    """Lines of the contract as a table."""
    return {name: frozenset(rest.split()) for name, _, rest in (line.partition(":") for line in lines)}


def _lineage(name: str) -> list[str]:
    """A dotted name and all that it lies within."""
    parts = name.split(".")
    return [".".join(parts[:length]) for length in range(1, len(parts) + 1)]
