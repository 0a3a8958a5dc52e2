"""Exports made to harm who reads them: each is a typed fault, within bounded memory, and never a traceback."""

from __future__ import annotations

import gzip
import json
import os
import resource
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from shutil import rmtree
from time import process_time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hsmsigner.verifier import VerificationError
from hsmsigner.verifier.command import main
from hsmsigner.verifier.note import parse_checkpoint, parse_vkey
from tests.verifier.export_writer import NoteKey, Writer, note_of, write_segment
from tests.verifier.logs import chained, encode, honest, no_debits, pair, published

LOG, WITNESS = NoteKey(), NoteKey("witness.example/w1", 0x04)
RECORDS = honest(5)
VKEY = parse_vkey(LOG.vkey)


def with_line(line: bytes) -> Callable[[Path], None]:
    """In the place of record 3."""

    def harm(folder: Path) -> None:
        write_segment(folder, 0, b"".join(one + b"\n" for one in [*RECORDS[:3], line, *RECORDS[4:]]))

    return harm


def header(**changes: object) -> Callable[[Path], None]:
    def harm(folder: Path) -> None:
        path = folder / "export.json"
        path.write_text(json.dumps(json.loads(path.read_bytes()) | changes), "utf-8")

    return harm


def put(name: str, content: bytes) -> Callable[[Path], None]:
    def harm(folder: Path) -> None:
        (folder / name).write_bytes(content)

    return harm


def link(name: str, target: str) -> Callable[[Path], None]:
    def harm(folder: Path) -> None:
        path = folder / name
        path.rename(folder / "moved")
        path.symlink_to(target)

    return harm


def pipe(folder: Path) -> None:
    (folder / "checkpoint").unlink()
    os.mkfifo(folder / "checkpoint")


def folder_in_place(folder: Path) -> None:
    (folder / "checkpoint").unlink()
    (folder / "checkpoint").mkdir()


def bomb(name: str, byte: bytes) -> Callable[[Path], None]:
    """A quarter of a gigabyte in as many kilobytes."""

    def harm(folder: Path) -> None:
        packer = zlib.compressobj(1, wbits=31)
        parts = [packer.compress(byte * 2**20) for _ in range(256)]
        (folder / name).write_bytes(b"".join(parts) + packer.flush())

    return harm


def note(**changes: str) -> bytes:
    text = note_of(RECORDS, [LOG])
    for old, new in changes.items():
        text = text.replace({"origin": LOG.name, "size": f"\n{len(RECORDS)}\n"}.get(old, old), new, 1)
    return text.encode()


SEGMENT_FILE, LIST = "records/000000.jsonl.gz", "checkpoints.jsonl.gz"
DEEP = b"[" * 100_000
HARM: dict[str, tuple[Callable[[Path], None], str]] = {
    "an endless line": (bomb(SEGMENT_FILE, b"a"), "format"),
    "millions of empty lines": (bomb(SEGMENT_FILE, b"\n"), "changed"),
    "an endless checkpoint": (bomb(LIST, b"a"), "format"),
    "a note larger than any": (put("checkpoint", b"a" * 2**21), "format"),
    "a header larger than any": (put("export.json", b" " * 2**17), "format"),
    "gzip cut off": (put(SEGMENT_FILE, gzip.compress(RECORDS[0])[:-9]), "format"),
    "gzip with a wrong checksum": (put(SEGMENT_FILE, gzip.compress(RECORDS[0])[:-8] + bytes(8)), "format"),
    "no gzip": (put(SEGMENT_FILE, b"hello"), "format"),
    "the last line does not end": (put(SEGMENT_FILE, gzip.compress(b"\n".join(RECORDS))), "format"),
    "deep": (with_line(b'{"x":' + DEEP), "changed"),
    "deep and closed": (with_line(b'{"x":' + DEEP + b"]" * 100_000 + b"}"), "changed"),
    "no UTF-8": (with_line(b'{"x":"\xff"}'), "changed"),
    "a field twice": (with_line(b'{"sequence":3,"sequence":3}'), "changed"),
    "no object": (with_line(b"3"), "changed"),
    "a number without end": (with_line(b'{"sequence":' + b"9" * 100_000 + b"}"), "changed"),
    "not a number": (with_line(b'{"sequence":NaN}'), "changed"),
    "a deep header": (put("export.json", DEEP), "format"),
    "a header that is no object": (put("export.json", b"[]"), "format"),
    "a negative size": (header(size=-1), "format"),
    "a fractional size": (header(size=12.0), "format"),
    "true as a size": (header(size=True), "format"),
    "a size beyond all": (header(size=2**200), "format"),
    "a size of nothing": (header(size=0), "truncated"),
    "a first that is odd": (header(first=7), "format"),
    "a first beyond the size": (header(first=65_536), "format"),
    "another format": (header(format="hsmsigner-export@v2"), "format"),
    "a path for an origin": (header(origin="../../etc/passwd"), "origin"),
    "a list for an origin": (header(origin=["x"]), "origin"),
    "a link for a file": (link("checkpoint", "/etc/passwd"), "path"),
    "a link to itself": (link("checkpoint", "checkpoint"), "path"),
    "a link for a folder": (link("records", "moved"), "path"),
    "a link for tiles": (link("tile", "/"), "path"),
    "a pipe": (pipe, "path"),
    "a folder for a file": (folder_in_place, "path"),
    "no log-key.json": (lambda folder: (folder / "log-key.json").unlink(), "missing"),
    "no list of checkpoints": (lambda folder: (folder / LIST).unlink(), "missing"),
    "no tiles": (lambda folder: rmtree(folder / "tile"), "missing"),
    "a short tile": (put("tile/0/000.p/12", bytes(31)), "tile"),
    "a long tile": (put("tile/0/000.p/12", bytes(10_000)), "format"),
    "keys that are none": (put("log-key.json", b'{"key":"keys/audit-log","vkeys":[5],"statements":[]}'), "format"),
    "a key named again and again": (
        put("log-key.json", json.dumps({"key": "keys/audit-log", "vkeys": [LOG.vkey] * 9, "statements": []}).encode()),
        "log_key",
    ),
    "a header of brackets": (put("export.json", b"[]," * 20_000), "format"),
    "keys of brackets": (put("log-key.json", b'{"key":[' + b"[]," * 2**22 + b"1]}"), "format"),
    "a record of brackets": (with_line(b'{"x":[' + b"[]," * 2**20 + b"1]}"), "changed"),
    "no keys": (put("log-key.json", b'{"key":"keys/audit-log","vkeys":[],"statements":[]}'), "format"),
    "statements that are none": (
        put("log-key.json", json.dumps({"key": "keys/audit-log", "vkeys": [LOG.vkey], "statements": [5]}).encode()),
        "log_key",
    ),
    "a list of checkpoints that is none": (put(LIST, gzip.compress(b"5\n")), "format"),
    "a checkpoint without a note": (put(LIST, gzip.compress(b'{"time":"x"}\n')), "format"),
    "sizes that fall": (
        put(LIST, gzip.compress(b"".join(
            encode({"time": "2027-01-15T08:00:00.000000Z", "note": note_of(RECORDS[:size], [LOG])}) + b"\n"
            for size in (5, 4)
        ))),
        "format",
    ),
    "a note with an extension": (put("checkpoint", note(**{"\n\n": "\nmore\n\n"})), "format"),
    "a note with a leading zero": (put("checkpoint", note(size=f"\n0{len(RECORDS)}\n")), "format"),
    "a note with a negative size": (put("checkpoint", note(size="\n-1\n")), "format"),
    "a note with a control character": (put("checkpoint", note(origin="a\x1b[2J")), "format"),
    "a note without signatures": (put("checkpoint", note_of(RECORDS, []).encode()), "format"),
    "a note with a thousand signatures": (put("checkpoint", note_of(RECORDS, [LOG] * 1000).encode()), "format"),
    "an empty note": (put("checkpoint", b""), "format"),
    "a note that is no UTF-8": (put("checkpoint", b"\xff\n\n\xff\n"), "format"),
}  # fmt: skip


@pytest.mark.parametrize("name", HARM)
def test_harmful_export_is_a_typed_fault(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    harm, fault = HARM[name]
    folder = Writer(RECORDS, [LOG], (3,)).write(tmp_path / "export")
    harm(folder)
    peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    code = main(["export", str(folder), "--log-key", LOG.vkey, "--json"])

    assert (code, json.loads(capsys.readouterr().out)["fault"]) == (5, fault)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak_kib < 64 * 1024


def test_text_from_a_file_does_not_steer_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    evil = "\x1b[2Jall is fine\r\ud800"
    entries = [published(at=0), pair(at=0), {"type": evil.replace("\ud800", ""), "at": 1}]
    folder = Writer(chained(entries), [LOG]).write(tmp_path / "export")
    (folder / "export.json").write_text(json.dumps({"format": evil, "first": 0, "size": 3, "origin": evil}), "utf-8")

    main(["export", str(folder), "--log-key", LOG.vkey])

    assert capsys.readouterr().out.replace("\n", "").isprintable()


def test_lone_surrogate_in_a_policy_is_a_fault(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = chained([published(at=0)])[0].replace(b"the policy", b"\\ud800")
    folder = Writer([record], [LOG]).write(tmp_path / "export")

    code = main(["export", str(folder), "--log-key", LOG.vkey, "--json"])

    assert (code, json.loads(capsys.readouterr().out)["fault"]) == (5, "policy")


@given(content=st.binary(max_size=300))
@settings(max_examples=300, deadline=None)
def test_no_bytes_make_the_note_parser_fail_otherwise(content: bytes) -> None:
    for candidate in (content, note()[:40] + content, content + note()[-60:]):
        with suppress(VerificationError):
            parse_checkpoint(candidate, "it")


@given(place=st.integers(0, 5000), byte=st.integers(0, 255), name=st.sampled_from(
    ["export.json", "checkpoint", "log-key.json", SEGMENT_FILE, LIST, "tile/0/000.p/12"]
))  # fmt: skip
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_changed_byte_anywhere_is_a_fault_or_no_change(
    place: int, byte: int, name: str, tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Writer(RECORDS, [LOG, WITNESS], (3,)).write(tmp_path_factory.mktemp("export") / "export")
    content = bytearray((folder / name).read_bytes())
    before, content[place % len(content)] = content[place % len(content)], byte
    (folder / name).write_bytes(content)

    code = main(["export", str(folder), "--log-key", LOG.vkey, "--witness", WITNESS.vkey, "--json"])

    fault = json.loads(capsys.readouterr().out)["fault"]
    assert code == (0 if fault is None else 5)
    # In the others are bytes that nothing hangs on: a time in the header of gzip, a space between two fields.
    assert fault is not None or byte == before or not name.startswith(("checkpoint", "tile")) or name == LIST


@pytest.mark.parametrize("text", [
    "", "x", "a+b+c", "a+00000000+AAAA", LOG.vkey[:-4], LOG.vkey.replace("+", "-"), LOG.vkey + "=", f"other{LOG.vkey}",
    "n+01020304+" + "AQ==",
], ids=range(9))  # fmt: skip
def test_verification_key_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"key"):
        parse_vkey(text)


QUOTA = {"quota": "q", "count": 1, "period_us": 1, "by_principal": True, "per_version": False}
MANY = [QUOTA | {"match": "keys/*", "quota": f"q{number}"} for number in range(10_000)]
SLOW = [QUOTA | {"match": "*" + f"{number:03}*a" * 100, "quota": f"q{number}"} for number in range(500)]


@pytest.mark.parametrize("quotas", [MANY, SLOW], ids=["many quotas", "slow patterns"])
def test_records_cost_no_more_than_they_are_long(
    quotas: list[dict[str, object]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    versions = [f"{'a' * 300_000}/versions/1"] + [f"keys/{'a' * 60}{number}/versions/1" for number in range(50)]
    signed = [no_debits(number, at=1, key=version) for number, version in enumerate(versions)]
    folder = Writer(chained([published(at=0, quotas=quotas), pair(at=0), *signed]), [LOG]).write(tmp_path / "export")
    peak_kib, began_s = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, process_time()

    code = main(["export", str(folder), "--log-key", LOG.vkey, "--json"])

    assert (code, json.loads(capsys.readouterr().out)["fault"]) == (5, "field")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak_kib < 128 * 1024
    assert process_time() - began_s < 20
