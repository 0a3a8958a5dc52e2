"""The export folder: resumable, reproducible, and its tiles add up to the tree's root."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from hsmsigner.cli import export_folder
from hsmsigner.cli.export_folder import ExportFolder, tile_path
from hsmsigner.errors import ConfigurationError
from hsmsigner.transparency.merkle import RightEdge, leaf_hash
from hsmsigner.verifier import VerificationError


def record(sequence: int) -> bytes:
    return json.dumps({"sequence": sequence}).encode()


def root(size: int) -> bytes:
    edge = RightEdge()
    for sequence in range(size):
        edge = edge.append(leaf_hash(record(sequence)))
    return edge.root()


def write(folder: Path, begin: int, end: int) -> ExportFolder:
    """All segments that have one of these records."""
    target = ExportFolder(folder)
    for number in range(begin // export_folder.SEGMENT, -(-end // export_folder.SEGMENT)):
        last = min((number + 1) * export_folder.SEGMENT, end)
        target.write_segment(
            number, ((sequence, record(sequence)) for sequence in range(number * export_folder.SEGMENT, last))
        )
    return target


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("size", [1, 255, 256, 257, 700, 65_536, 65_537, 66_000])
def test_tiles_add_up_to_the_root(tmp_path: Path, size: int) -> None:
    assert write(tmp_path, 0, size).write_upper_tiles(size) == root(size)


def test_continuing_gives_the_files_that_one_export_gives(tmp_path: Path) -> None:
    write(tmp_path / "parts", 0, 300).write_upper_tiles(300)
    write(tmp_path / "parts", 0, 65_600).write_upper_tiles(65_600)
    write(tmp_path / "parts", 65_536, 66_400).write_upper_tiles(66_400)
    write(tmp_path / "whole", 0, 66_400).write_upper_tiles(66_400)
    assert files(tmp_path / "parts") == files(tmp_path / "whole")


def test_a_segment_counts_as_there_only_when_it_is_full(tmp_path: Path) -> None:
    target = write(tmp_path, 0, 65_536 + 10)
    assert target.has_segment(0)
    assert not target.has_segment(1)
    (tmp_path / tile_path(0, 17)).unlink()
    assert not target.has_segment(0)


def test_an_export_that_breaks_off_leaves_no_half_segment(tmp_path: Path) -> None:
    target = ExportFolder(tmp_path)
    with pytest.raises(VerificationError) as caught:
        target.write_segment(0, [(0, record(0)), (2, record(2))])
    assert (caught.value.fault, caught.value.sequence) == ("gap", 1)
    assert not (tmp_path / "records" / "000000.jsonl.gz").exists()


def test_a_record_with_a_line_break_is_named(tmp_path: Path) -> None:
    with pytest.raises(VerificationError, match="record 0 has a line break"):
        ExportFolder(tmp_path).write_segment(0, [(0, b"{}\n{}")])


def test_checkpoints_that_the_server_forgot_are_kept(tmp_path: Path) -> None:
    target = ExportFolder(tmp_path)
    notes = {
        size: {"time": "2026-11-20T10:00:00.000000Z", "note": f"log\n{size}\nroot\n\n— log sig\n"} for size in (3, 7, 9)
    }
    target.write_checkpoints([(3, notes[3]), (9, notes[9])])
    target.write_checkpoints([(7, notes[7])])
    lines = gzip.decompress((tmp_path / "checkpoints.jsonl.gz").read_bytes()).decode().splitlines()
    assert [json.loads(line) for line in lines] == [notes[3], notes[7], notes[9]]


@pytest.mark.parametrize(
    ("harm", "fault"),
    [
        (lambda path: path.unlink(), "missing"),
        (lambda path: path.write_bytes(path.read_bytes()[:-20]), "format"),
        (lambda path: path.write_bytes(gzip.compress(record(0) + b"\n")), "changed"),
        (
            lambda path: path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()).replace(b"9", b"8"))),
            "changed",
        ),
    ],
    ids=["gone", "cut off", "empty but for one", "changed"],
)
def test_a_segment_that_has_not_all_its_records_may_not_be_sealed(
    tmp_path: Path, harm: Callable[[Path], object], fault: str
) -> None:
    target = write(tmp_path, 0, 65_536)
    target.require_records(0)
    harm(tmp_path / "records" / "000000.jsonl.gz")
    with pytest.raises(VerificationError) as caught:
        target.require_records(0)
    assert (caught.value.fault, caught.value.sequence) == (fault, 0)


@pytest.mark.parametrize(
    "content", [b"", b"5", b"[1]", b'{"origin": 5}', b'{"origin": "x", "first": "0", "size": 1}', b"\xff"]
)
def test_a_folder_whose_header_is_damaged_is_left_as_it_is(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "export.json").write_bytes(content)
    with pytest.raises(ConfigurationError, match="export into an empty one"):
        ExportFolder(tmp_path)


@pytest.mark.parametrize(
    "content", [b"x", gzip.compress(b"x\n"), gzip.compress(b'{"note": 5}\n'), gzip.compress(b"{}\n")[:-3]]
)
def test_a_folder_whose_checkpoints_are_damaged_is_left_as_it_is(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "checkpoints.jsonl.gz"
    path.write_bytes(content)
    with pytest.raises(ConfigurationError, match="export into an empty one"):
        ExportFolder(tmp_path).write_checkpoints([])
    assert path.read_bytes() == content


def test_tile_paths_are_those_of_tlog_tiles() -> None:
    assert tile_path(0, 0) == "tile/0/000"
    assert tile_path(0, 999) == "tile/0/999"
    assert tile_path(2, 1_234_067) == "tile/2/x001/x234/067"
    assert tile_path(1, 5, 17) == "tile/1/005.p/17"
