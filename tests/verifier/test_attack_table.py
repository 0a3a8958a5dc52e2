"""What somebody may do to a log, row by row: each is found by `hsmsigner-verify`, and named for what it is.

Who attacks holds the store, the export and every file of it. Some rows take the PIN as well: then checkpoints of
another history are signed by the log's own key, and only what was kept elsewhere (a checkpoint, a witness) can tell.
"""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from hsmsigner.verifier.command import main
from tests.verifier.export_writer import NoteKey, Writer, checkpoint, note_of, tile_name, write_segment
from tests.verifier.logs import (
    Fields,
    authorized,
    chained,
    encode,
    ended,
    honest,
    instant,
    pair,
    published,
    rewritten,
    signing,
)

LOG, WITNESS, OTHER_WITNESS = NoteKey(), NoteKey("witness.example/w1", 0x04), NoteKey("witness.example/w2", 0x04)
STRANGER = NoteKey()
RECORDS = honest(300)
SIZE = len(RECORDS)
SIZES = (100, 256, 500)
# The record that most rows are about: an outcome.
PLACE = 57


@dataclass(frozen=True)
class Row:
    """An attack on the folder `export` below a path, and what must be found; `options` besides the log's key."""

    name: str
    attack: Callable[[Path], None]
    fault: str
    sequence: int | None = None
    said: str = ""
    options: tuple[str, ...] = ()


def write(path: Path, records: Sequence[bytes] = RECORDS, **options: object) -> Path:
    return Writer(records, [LOG, WITNESS], SIZES, **options).write(path / "export")  # type: ignore[arg-type]


def replaced(change: Callable[[list[bytes]], object]) -> Callable[[Path], None]:
    """The stored lines are changed, nothing else."""

    def attack(path: Path) -> None:
        folder, lines = write(path), list(RECORDS)
        change(lines)
        write_segment(folder, 0, b"".join(line + b"\n" for line in lines))

    return attack


def rebuilt(
    change: Callable[[list[Fields]], None], *, tiles: bool = True, signed: bool = False
) -> Callable[[Path], None]:
    """Records are changed, numbered and chained anew; perhaps the tiles as well, and the checkpoints with the PIN."""

    def attack(path: Path) -> None:
        records = rewritten(RECORDS, change)
        write(
            path, records, tiles_of=None if tiles else RECORDS, checkpoints_of=None if signed else RECORDS
        )  # fmt: skip

    return attack


def logged(entries: Sequence[Fields]) -> Callable[[Path], None]:
    """The appliance itself wrote and signed a log that tells of what must not happen."""
    return lambda path: (Writer(chained(entries), [LOG, WITNESS]).write(path / "export"), None)[1]


def edit_line(place: int) -> Callable[[list[bytes]], None]:
    def change(lines: list[bytes]) -> None:
        lines[place] = lines[place].replace(b"settlement/engine-1", b"settlement/engine-9")

    return change


def edit_fields(place: int, **changes: object) -> Callable[[list[Fields]], None]:
    return lambda fields: fields[place].update(changes)


def swap(lines: list[bytes]) -> None:
    lines[PLACE], lines[PLACE + 1] = lines[PLACE + 1], lines[PLACE]


def renumber(lines: list[bytes]) -> None:
    fields = json.loads(lines[PLACE])
    lines[PLACE] = encode(fields | {"sequence": 500})


def backdate(lines: list[bytes]) -> None:
    fields = json.loads(lines[PLACE])
    lines[PLACE] = encode(fields | {"time": instant(-86_400)})


def drop_and_renumber(fields: list[Fields]) -> None:
    # Both records of a signature, and in their place later ones, so that the number of records stays.
    del fields[PLACE - 1 : PLACE + 1]
    fields += [{"time": instant(10_000), "type": "appliance.started"}, {"time": instant(10_000), "type": "x"}]
    for one in fields[PLACE - 1 :]:
        if "authorized" in one:
            one["authorized"] -= 2


def cut(path: Path) -> None:
    folder = write(path)
    write_segment(folder, 0, b"".join(record + b"\n" for record in RECORDS[:500]))


def cut_and_say_so(path: Path) -> None:
    cut(path)
    edit_json(path / "export" / "export.json", size=500)


def go_on(path: Path) -> None:
    folder = write(path)
    write_segment(folder, 0, b"".join(record + b"\n" for record in [*RECORDS, b"{}"]))


def fork(path: Path) -> None:
    keep(path)
    write(path, other_history())


def other_history() -> list[bytes]:
    return rewritten(RECORDS, edit_fields(PLACE, signature_sha256="f" * 64))


def roll_back(path: Path) -> None:
    keep(path)
    Writer(RECORDS[:300], [LOG, WITNESS], (100, 256)).write(path / "export")


def roll_back_and_leave_the_list(path: Path) -> None:
    write(path)
    Writer(RECORDS[:300], [LOG, WITNESS], (100, 256)).write(path / "other")
    for name in ("checkpoint", "export.json"):
        shutil.copy(path / "other" / name, path / "export" / name)
    shutil.copytree(path / "other" / "tile", path / "export" / "tile", dirs_exist_ok=True)
    shutil.copytree(path / "other" / "records", path / "export" / "records", dirs_exist_ok=True)


def keep(path: Path) -> None:
    """What an auditor kept of the honest log."""
    (path / "kept").write_text(note_of(RECORDS[:400], [LOG]), "utf-8")


def forge(path: Path) -> None:
    folder = write(path, other_history())
    (folder / "checkpoint").write_text(note_of(other_history(), [STRANGER]), "utf-8")


def forge_with_the_right_key_id(path: Path) -> None:
    folder = write(path)
    good, other = note_of(RECORDS, [LOG]), note_of(RECORDS[:-1], [LOG])
    (folder / "checkpoint").write_text(good.replace(good.splitlines()[-1], other.splitlines()[-1]), "utf-8")


def replace_all(path: Path) -> None:
    Writer(other_history(), [STRANGER, WITNESS], SIZES).write(path / "export")


def replace_all_but_the_keys(path: Path) -> None:
    Writer(other_history(), [STRANGER, WITNESS], SIZES, vkeys=[LOG.vkey]).write(path / "export")


def replace_segment(path: Path) -> None:
    folder = write(path)
    write_segment(folder, 0, b"".join(record + b"\n" for record in honest_elsewhere()))


def honest_elsewhere() -> list[bytes]:
    return chained([published(at=0, comment="another log"), pair(at=0), *signing(300)])


def delete_segment(path: Path) -> None:
    (write(path) / "records" / "000000.jsonl.gz").unlink()


def edit_tile(path: Path) -> None:
    tile = write(path) / "tile" / "0" / tile_name(0)
    content = bytearray(tile.read_bytes())
    content[PLACE * 32] ^= 1
    tile.write_bytes(content)


def edit_last_hash_of_tile(path: Path) -> None:
    tile = write(path) / "tile" / "0" / tile_name(1)
    content = bytearray(tile.read_bytes())
    content[-1] ^= 1
    tile.write_bytes(content)


def strange_checkpoint(path: Path) -> None:
    """The log's key signed a checkpoint of size 256 that is of another history."""
    folder = write(path)
    file = folder / "checkpoints.jsonl.gz"
    lines = [json.loads(line) for line in gzip.decompress(file.read_bytes()).splitlines()]
    lines[1]["note"] = note_of(other_history()[:256], [LOG, WITNESS])
    file.write_bytes(gzip.compress(b"".join(encode(line) + b"\n" for line in lines)))


def without_witness(path: Path) -> None:
    folder = write(path)
    (folder / "checkpoint").write_text(note_of(RECORDS, [LOG]), "utf-8")


def forged_witness(path: Path) -> None:
    folder = write(path)
    text = note_of(RECORDS, [LOG]).partition("\n\n")[0] + "\n"
    lie = WITNESS.line(text.replace(f"\n{SIZE}\n", f"\n{SIZE + 1}\n"))
    (folder / "checkpoint").write_text(note_of(RECORDS, [LOG]) + lie, "utf-8")


def edit_json(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_bytes()) | changes), "utf-8")


SIX_IN_TEN_SECONDS = [published(at=0), pair(at=0)]
for number in range(6):
    SIX_IN_TEN_SECONDS += [
        authorized(number, at=number, observed=(min(number + 1, 5), number + 1)),
        ended(number, 2 + 2 * number, at=number),
    ]
WITHOUT_AUTHORIZATION = [published(at=0), pair(at=0), *signing(1), ended(7, 2, at=20)]
SUSPENDED = {"type": "key.suspended", "at": 15, "key": "keys/settlement-eu", "version": "keys/settlement-eu/versions/1"}
WHILE_SUSPENDED = [
    published(at=0), pair(at=0), *signing(1), SUSPENDED | {"from": "ACTIVE", "to": "SUSPENDED"},
    authorized(1, at=20, observed=(1, 2)),
]  # fmt: skip
ASK_WITNESS = ("--witness", WITNESS.vkey)

TABLE = [
    Row("edit", replaced(edit_line(PLACE)), "changed", PLACE),
    Row("edit the first", replaced(edit_line(2)), "changed", 2),
    Row("edit the last", replaced(edit_line(SIZE - 1)), "changed", SIZE - 1),
    Row("edit the last of a tile", replaced(edit_line(255)), "changed", 255),
    Row("edit and chain anew", rebuilt(edit_fields(PLACE, signature_sha256="0"), tiles=False), "changed", PLACE),
    Row("edit and hash anew", rebuilt(edit_fields(PLACE, signature_sha256="0")), "checkpoint", 0, "records 0 to 99"),
    Row("edit late, hash anew", rebuilt(edit_fields(550, input_sha256="0")), "root", 500, "records 500 to 601"),
    Row("drop", replaced(lambda lines: lines.pop(PLACE)), "gap", PLACE),
    Row("drop the first", replaced(lambda lines: lines.pop(0)), "gap", 0),
    Row("drop, number and hash anew", rebuilt(drop_and_renumber), "checkpoint", 0, "records 0 to 99"),
    Row("swap", replaced(swap), "order", PLACE, "moved"),
    Row("repeat", replaced(lambda lines: lines.insert(PLACE, lines[PLACE - 1])), "order", PLACE, "again"),
    Row("insert", replaced(lambda lines: lines.insert(PLACE, b'{"sequence":57}')), "changed", PLACE),
    Row("truncate", cut, "truncated", 500),
    Row("truncate and say so", cut_and_say_so, "truncated", 500),
    Row("append", go_on, "extended", SIZE),
    Row("fork, with the PIN", fork, "fork", 256, "that was kept", ("--checkpoint", "{path}/kept")),
    Row("roll back, with the PIN", roll_back, "rollback", 300, "that was kept", ("--checkpoint", "{path}/kept")),
    Row("roll back, leave the list", roll_back_and_leave_the_list, "rollback", None, "set back"),
    Row("forge signature", forge, "signature", None, "no trusted key"),
    Row("forge signature with the right id", forge_with_the_right_key_id, "signature", None, "is wrong"),
    Row("replace everything", replace_all, "log_key"),
    Row("replace everything but the keys", replace_all_but_the_keys, "signature"),
    Row("replace whole file", replace_segment, "changed", 0),
    Row("delete whole file", delete_segment, "missing"),
    Row("re-number", replaced(renumber), "sequence", PLACE),
    Row("back-date", replaced(backdate), "changed", PLACE),
    Row("back-date, with the PIN", rebuilt(edit_fields(PLACE, time=instant(-1)), signed=True), "time", PLACE),
    Row("edit a tile", edit_tile, "tile", PLACE),
    Row("edit the end of a tile", edit_last_hash_of_tile, "tile", 511),
    Row("checkpoint not in the tree", strange_checkpoint, "checkpoint", 100, "records 100 to 255"),
    Row("witness missing", without_witness, "witness", None, "0 of the 1", ASK_WITNESS),
    Row("witness forged", forged_witness, "witness", None, "is wrong", ASK_WITNESS),
    Row("one witness of two", write, "witness", None, "1 of the 2", (*ASK_WITNESS, "--witness", OTHER_WITNESS.vkey)),  # type: ignore[arg-type]
    Row("over-quota", logged(SIX_IN_TEN_SECONDS), "quota", 12, "allows 5"),
    Row("outcome without authorization", logged(WITHOUT_AUTHORIZATION), "outcome", 4),
    Row("signed in the wrong state", logged(WHILE_SUSPENDED), "key_state", 5, "SUSPENDED"),
]  # fmt: skip


@pytest.mark.parametrize("row", TABLE, ids=[row.name for row in TABLE])
def test_attack_is_found_and_named(row: Row, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    row.attack(tmp_path)
    options = [option.replace("{path}", str(tmp_path)) for option in row.options]

    code = main(["export", str(tmp_path / "export"), "--log-key", LOG.vkey, "--json", *options])

    found = json.loads(capsys.readouterr().out)
    assert (found["fault"], found["sequence"]) == (row.fault, row.sequence), found["message"]
    assert row.said in found["message"]
    assert code == 5


@pytest.mark.parametrize("options", [(), ASK_WITNESS, (*ASK_WITNESS, "--checkpoint", "{path}/kept")])
def test_honest_export_is_fine(options: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path)
    keep(tmp_path)
    given = [option.replace("{path}", str(tmp_path)) for option in options]

    code = main(["export", str(tmp_path / "export"), "--log-key", LOG.vkey, "--json", *given])

    found = json.loads(capsys.readouterr().out)
    assert (code, found["fault"], found["size"], found["checkpoints"]) == (0, None, SIZE, 4)


def test_fork_with_the_pin_and_nothing_kept_is_not_found(tmp_path: Path) -> None:
    """What docs/audit.md says is not promised: without a witness or a checkpoint kept elsewhere nobody can tell."""
    fork(tmp_path)

    assert main(["export", str(tmp_path / "export"), "--log-key", LOG.vkey]) == 0


def test_checkpoint_of_the_writer_is_as_the_format_says() -> None:
    lines = checkpoint(1, bytes(32), [LOG]).split("\n")

    assert lines[:4] == [LOG.name, "1", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", ""]
    assert lines[4].startswith(f"— {LOG.name} ")
