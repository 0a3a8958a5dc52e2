from __future__ import annotations

import hashlib
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hsmsigner.transparency.merkle import RightEdge
from hsmsigner.transparency.proof import TILE_SIZE, TiledTree, tile_root
from tests.rfc9162 import NaiveTree

MOST = 66_100
LEAVES = [hashlib.sha256(number.to_bytes(4)).digest() for number in range(MOST)]
NAIVE = NaiveTree(LEAVES)
_ROOTS = [tile_root(LEAVES[start : start + TILE_SIZE]) for start in range(0, MOST - TILE_SIZE + 1, TILE_SIZE)]
_TOP = [tile_root(_ROOTS[start : start + TILE_SIZE]) for start in range(0, len(_ROOTS) - TILE_SIZE + 1, TILE_SIZE)]
_LEVELS = (LEAVES, _ROOTS, _TOP)

EDGES = [0, 1, 2, 3, 127, 128, 255, 256, 257, 511, 512, 513, 65_279, 65_280, 65_535, 65_536, 65_537, 65_792, MOST]
sizes = st.one_of(st.sampled_from(EDGES), st.integers(0, MOST))


@given(st.integers(0, 700), st.integers(0, 700))
@settings(deadline=None)
def test_an_edge_that_is_extended_is_one_that_was_appended_to(before: int, more: int) -> None:
    edge = RightEdge().extend(LEAVES[:before])
    assert edge.root() == NAIVE.root(before)
    roots: list[bytes] = []
    extended = edge.extend(LEAVES[before : before + more], roots)
    assert roots == _ROOTS[before // TILE_SIZE : (before + more) // TILE_SIZE]
    for leaf in LEAVES[before : before + more]:
        edge = edge.append(leaf)
    assert extended == edge


def read_tile(level: int, number: int) -> Sequence[bytes]:
    tile = _LEVELS[level][TILE_SIZE * number : TILE_SIZE * (number + 1)]
    assert tile, "a tile was asked for that the tree has not"
    return tile


@pytest.mark.parametrize("size", EDGES)
def test_the_root_of_a_tree_at_an_edge_is_that_of_the_rfc(size: int) -> None:
    assert TiledTree(size, read_tile).root() == NAIVE.root(size)


@given(size=sizes, data=st.data())
@settings(max_examples=150, deadline=None)
def test_roots_and_proofs_are_those_of_the_rfc(size: int, data: st.DataObject) -> None:
    tree = TiledTree(size, read_tile)
    assert tree.root() == NAIVE.root(size)
    old = data.draw(sizes.map(lambda drawn: min(drawn, size)))
    assert tree.consistency_proof(old) == NAIVE.proof(old, size)
    if size:
        index = data.draw(sizes.map(lambda drawn: min(drawn, size - 1)))
        assert tree.inclusion_proof(index) == NAIVE.path(index, size)


def test_a_proof_of_a_large_tree_reads_two_tiles_of_each_level() -> None:
    asked: list[tuple[int, int]] = []

    def read(level: int, number: int) -> Sequence[bytes]:
        asked.append((level, number))
        return read_tile(level, number)

    TiledTree(MOST, read).inclusion_proof(12_345)
    assert len(asked) == len(set(asked)) <= 6


@pytest.mark.parametrize(("size", "index"), [(0, 0), (5, 5), (5, -1)])
def test_there_is_no_proof_for_a_leaf_that_is_not_there(size: int, index: int) -> None:
    with pytest.raises(LookupError):
        TiledTree(size, read_tile).inclusion_proof(index)


@pytest.mark.parametrize("old", [6, -1])
def test_there_is_no_proof_from_a_tree_that_is_no_beginning(old: int) -> None:
    with pytest.raises(LookupError):
        TiledTree(5, read_tile).consistency_proof(old)
