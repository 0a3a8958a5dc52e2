"""The contract on imports between rooms: what no line allows is named."""

from __future__ import annotations

import pytest
from grimp import ImportGraph

from tests.rooms import RoomsContract

ROOMS = ["domain:", "operations: domain", "store: domain operations.ports", "store.log: cli"]


@pytest.mark.parametrize(
    ("importer", "imported", "is_allowed"),
    [
        ("operations.sign", "domain.key", True),
        ("operations.sign", "operations.turn", True),
        ("domain.key", "operations.sign", False),
        ("store.log", "operations.ports.store", True),
        ("store.log", "operations.sign", False),
        ("store.log", "cli", True),
        ("store.keys", "cli", False),
        ("unheard_of", "domain.key", False),
        ("store.keys", "sqlalchemy", True),
        ("operations.sign", "sqlalchemy", False),
        ("operations.sign", "asyncio", True),
    ],
)
def test_an_import_that_no_line_allows_is_named(importer: str, imported: str, *, is_allowed: bool) -> None:
    external = imported in ("sqlalchemy", "asyncio")
    target = imported if external else f"ours.{imported}"
    graph = ImportGraph()
    for module in ("ours", f"ours.{importer}"):
        graph.add_module(module)
    graph.add_module(target, is_squashed=external)
    graph.add_import(importer=f"ours.{importer}", imported=target)
    options = {"rooms": ROOMS, "libraries": ["sqlalchemy: store"]}
    check = RoomsContract("rooms", {"root_packages": ["ours"]}, options).check(graph, verbose=False)
    assert check.metadata["faults"] == ([] if is_allowed else [(f"ours.{importer}", target)])
