"""The tree of RFC 6962, against its definition and against the vectors of Certificate Transparency."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hsmsigner.transparency.merkle import RightEdge, leaf_hash, node_hash

LEAVES = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]
# Roots over the first n leaves, from the test data of google/certificate-transparency.
ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


def edge_of(records: list[bytes]) -> RightEdge:
    edge = RightEdge()
    for record in records:
        edge = edge.append(leaf_hash(record))
    return edge


def tree_hash(records: list[bytes]) -> bytes:
    """MTH of RFC 6962 section 2.1, word for word."""
    if not records:
        return hashlib.sha256(b"").digest()
    if len(records) == 1:
        return hashlib.sha256(b"\x00" + records[0]).digest()
    split = 1 << ((len(records) - 1).bit_length() - 1)
    return hashlib.sha256(b"\x01" + tree_hash(records[:split]) + tree_hash(records[split:])).digest()


@pytest.mark.parametrize("size", range(9))
def test_the_known_trees_have_the_known_roots(size: int) -> None:
    assert edge_of([bytes.fromhex(leaf) for leaf in LEAVES[:size]]).root().hex() == ROOTS[size]


def test_a_tree_grown_leaf_by_leaf_has_the_root_of_the_definition() -> None:
    records, edge = [b"record %d" % number for number in range(201)], RightEdge()
    for size, record in enumerate(records):
        assert (edge.size, edge.root()) == (size, tree_hash(records[:size]))
        assert len(edge.hashes) == size.bit_count()
        edge = edge.append(leaf_hash(record))


@given(records=st.lists(st.binary(max_size=8), max_size=40))
def test_an_edge_survives_the_store(records: list[bytes]) -> None:
    edge = edge_of(records)
    read = RightEdge.from_bytes(edge.size, edge.to_bytes())
    assert read == edge
    assert read.append(leaf_hash(b"next")).root() == tree_hash([*records, b"next"])


@given(records=st.lists(st.binary(max_size=8), min_size=1, max_size=40), data=st.data())
def test_any_edited_removed_or_moved_record_changes_the_root(records: list[bytes], data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(records) - 1))
    edited = [*records[:place], records[place] + b"!", *records[place + 1 :]]
    removed = [*records[:place], *records[place + 1 :]]
    moved = [*removed, records[place]]
    root = edge_of(records).root()
    assert edge_of(edited).root() != root
    assert edge_of(removed).root() != root
    assert (edge_of(moved).root() == root) is (moved == records)


@pytest.mark.parametrize(
    ("size", "length"),
    [(0, 1), (0, 32), (1, 0), (1, 31), (1, 33), (3, 32), (4, 64), (-1, 32)],
)
def test_an_edge_that_cannot_be_is_refused(size: int, length: int) -> None:
    with pytest.raises(ValueError, match="does not fit"):
        RightEdge.from_bytes(size, bytes(length))


def test_a_leaf_is_never_taken_for_a_node() -> None:
    left, right = leaf_hash(b"a"), leaf_hash(b"b")
    assert leaf_hash(left + right) != node_hash(left, right)
