"""Receipts, checkpoints held against each other, rotated log keys, and archives: as an auditor uses them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from hashlib import sha256
from itertools import pairwise
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from hsmsigner.verifier.command import main
from hsmsigner.verifier.merkle import proves_consistency, root_from_inclusion
from tests.continuity import Pair, make_pairs, statement_between
from tests.verifier.export_writer import (
    SEGMENT,
    NoteKey,
    Tree,
    Writer,
    consistency_proof,
    leaf,
    node,
    note_of,
    receipt,
)
from tests.verifier.logs import chained, encode, ended, honest, no_debits, pair, published, rewritten

LOG, WITNESS = NoteKey(), NoteKey("witness.example/w1", 0x04)
ECDSA_LOG = NoteKey(kind=0x02, private=ec.generate_private_key(ec.SECP256R1()))
RECORDS = honest(20)
SIGNATURE = b"the signature"
SIGNED = rewritten(RECORDS, lambda fields: fields[7].update(signature_sha256=sha256(SIGNATURE).hexdigest()))


def run(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str | None, str]:
    code = main([*map(str, arguments), "--json"])
    found = json.loads(capsys.readouterr().out)
    return code, found["fault"], found["message"]


def saved(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.mark.parametrize("log", [LOG, ECDSA_LOG], ids=["Ed25519", "ECDSA P-256"])
@pytest.mark.parametrize("index", [0, 7, 31, 32, 41])
def test_receipt_of_a_record_is_fine(
    log: NoteKey, index: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = saved(tmp_path / "r", receipt(RECORDS, index, [log, WITNESS]))

    assert run(capsys, "receipt", file, "--log-key", log.vkey, "--witness", WITNESS.vkey)[:2] == (0, None)


@pytest.mark.parametrize("content", [SIGNATURE, SIGNATURE + b"\n"])
def test_receipt_is_of_this_signature(content: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, signature = saved(tmp_path / "r", receipt(SIGNED, 7, [LOG])), saved(tmp_path / "s", content)

    assert run(capsys, "receipt", file, "--log-key", LOG.vkey, "--signature", signature)[:2] == (0, None)


FORGED: dict[str, tuple[Callable[[], str | bytes], str]] = {
    "another signature": (lambda: receipt(RECORDS, 7, [LOG]), "receipt"),
    "a record of no signature": (lambda: receipt(SIGNED, 6, [LOG]), "receipt"),
    "another place": (lambda: receipt(SIGNED, 7, [LOG]).replace("index 7", "index 6"), "proof"),
    "another record": (lambda: receipt(SIGNED, 7, [LOG]).replace("extra e", "extra f"), "proof"),
    "a hash left out": (lambda: without_line(receipt(SIGNED, 7, [LOG]), 3), "proof"),
    "a hash too many": (lambda: twice_line(receipt(SIGNED, 7, [LOG]), 3), "proof"),
    "signed by a stranger": (lambda: receipt(SIGNED, 7, [NoteKey()]), "signature"),
    "another log": (lambda: receipt(SIGNED, 7, [NoteKey("other.example")]).replace("log.example", "other"), "origin"),
    "no receipt": (lambda: "hello", "format"),
    "no index": (lambda: without_line(receipt(SIGNED, 7, [LOG]), 2), "format"),
    "a negative index": (lambda: receipt(SIGNED, 7, [LOG]).replace("index 7", "index -7"), "format"),
    "no base64": (lambda: receipt(SIGNED, 7, [LOG]).replace("extra e", "extra !"), "format"),
    "no UTF-8": (lambda: b"\xff\xfe\n\n", "format"),
}


@pytest.mark.parametrize("name", FORGED)
def test_forged_receipt_is_found(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content, fault = FORGED[name]
    file, signature = saved(tmp_path / "r", content()), saved(tmp_path / "s", SIGNATURE)

    assert run(capsys, "receipt", file, "--log-key", LOG.vkey, "--signature", signature)[:2] == (5, fault)


def without_line(text: str, number: int) -> str:
    lines = text.split("\n")
    return "\n".join(lines[:number] + lines[number + 1 :])


def twice_line(text: str, number: int) -> str:
    lines = text.split("\n")
    return "\n".join([*lines[:number], lines[number], *lines[number:]])


@pytest.mark.parametrize(("old", "new"), [(0, 42), (1, 42), (32, 42), (33, 42), (42, 42), (7, 8)])
def test_a_later_checkpoint_contains_an_earlier_one(
    old: int, new: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [saved(tmp_path / f"{size}.note", note_of(RECORDS[:size], [LOG])) for size in (old, new)]
    proof = saved(tmp_path / "proof", consistency_proof(RECORDS, old, new))
    export = Writer(RECORDS, [LOG]).write(tmp_path / "export")

    for way in (("--proof", proof), ("--export", export)):
        assert run(capsys, "checkpoints", *files, "--log-key", LOG.vkey, *way)[:2] == (0, None)


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        (SIGNED[:20], RECORDS, "proof"),
        (RECORDS, SIGNED, "fork"),
        (RECORDS, RECORDS[:20], "rollback"),
        (RECORDS[:21], RECORDS, "proof"),
    ],
    ids=["written anew", "two of one size", "older", "another proof"],
)
def test_checkpoints_that_contradict_are_found(
    old: Sequence[bytes], new: Sequence[bytes], fault: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [saved(tmp_path / name, note_of(records, [LOG])) for name, records in (("old", old), ("new", new))]
    proof = saved(tmp_path / "proof", consistency_proof(RECORDS, 20, 42))
    export = Writer(RECORDS, [LOG]).write(tmp_path / "export")

    assert run(capsys, "checkpoints", *files, "--log-key", LOG.vkey, "--proof", proof)[:2] == (5, fault)
    if old != RECORDS[:21]:
        by_export = "fork" if fault == "proof" else fault
        assert run(capsys, "checkpoints", *files, "--log-key", LOG.vkey, "--export", export)[:2] == (5, by_export)


@pytest.mark.parametrize(
    "text", ["", "hsmsigner-consistency@v1\nold 1\nnew 2", "hsmsigner-consistency@v1\nold 1\nnew x\n\n"]
)
def test_consistency_proof_that_is_none_is_refused(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [saved(tmp_path / f"{size}.note", note_of(RECORDS[:size], [LOG])) for size in (1, 2)]
    proof = saved(tmp_path / "proof", text)

    assert run(capsys, "checkpoints", *files, "--log-key", LOG.vkey, "--proof", proof)[:2] == (5, "format")


@given(st.integers(1, 70).flatmap(lambda size: st.tuples(st.just(size), st.integers(0, size - 1))), st.data())
def test_a_proof_holds_for_its_leaf_and_root_only(size_and_index: tuple[int, int], data: st.DataObject) -> None:
    size, index = size_and_index
    leaves = [leaf(bytes([number])) for number in range(size)]
    tree = Tree(leaves)
    root, proof = tree.root(0, size), tree.inclusion(index, 0, size)
    old = data.draw(st.integers(1, size))
    old_root, consistency = tree.root(0, old), tree.consistency(old, 0, size)

    assert root_from_inclusion(index, size, leaves[index], proof) == root
    assert root_from_inclusion(index, size, node(leaves[index], leaves[index]), proof) != root
    assert root_from_inclusion(index, size, leaves[index], [*proof, root]) != root
    assert proves_consistency((old, old_root), (size, root), consistency)
    assert not proves_consistency((old, leaf(b"other")), (size, root), consistency)
    assert not proves_consistency((old, old_root), (size, leaf(b"other")), consistency)
    assert not proves_consistency((old, old_root), (size, root), [*consistency, root])
    if consistency:
        assert not proves_consistency((old, old_root), (size, root), consistency[:-1])
        assert not proves_consistency((old, old_root), (size, root), [node(consistency[0], root), *consistency[1:]])


def rotated(algorithm: str = "ED25519", count: int = 3) -> tuple[list[NoteKey], list[dict[str, object]]]:
    """Versions of the log's key, and the statements between them."""
    pairs: list[Pair] = make_pairs(count, algorithm, key_id="audit-log")
    keys = [NoteKey(kind=0x01 if algorithm == "ED25519" else 0x02, private=one.private_key) for one in pairs]  # type: ignore[arg-type]
    statements = [statement_between(old, new) for old, new in pairwise(pairs)]
    return keys, [
        {
            "old_version": str(one.old_version), "new_version": str(one.new_version),
            "signed_by_old": one.signed_by_old, "signed_by_new": one.signed_by_new,
        }
        for one in statements
    ]  # fmt: skip


@pytest.mark.parametrize("algorithm", ["ED25519", "ECDSA_P256_SHA256"])
@pytest.mark.parametrize("trusted", [0, 1, 2])
def test_rotated_log_key_is_followed_from_the_version_that_is_trusted(
    algorithm: str, trusted: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keys, statements = rotated(algorithm)
    vkeys = [key.vkey for key in keys]
    signers: dict[int, Sequence[NoteKey]] = {10: keys[:1], 20: keys[1:2]}
    export = Writer(RECORDS, keys[2:], (10, 20), vkeys=vkeys, statements=statements, signers=signers).write(
        tmp_path / "export"
    )
    file = saved(tmp_path / "r", receipt(RECORDS, 7, keys[2:]))

    assert run(capsys, "export", export, "--log-key", vkeys[trusted])[:2] == (0, None)
    by_file = ("--log-key", vkeys[trusted], "--log-keys", export / "log-key.json")
    assert run(capsys, "receipt", file, *by_file)[:2] == (0, None)
    old, new = saved(tmp_path / "old", note_of(RECORDS[:10], keys[:1])), export / "checkpoint"
    proof = saved(tmp_path / "proof", consistency_proof(RECORDS, 10, 42))
    assert run(capsys, "checkpoints", old, new, *by_file, "--proof", proof)[:2] == (0, None)
    assert run(capsys, "checkpoints", old, new, *by_file[:2], "--export", export)[:2] == (0, None)


def test_log_key_that_nobody_vouched_for_is_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keys, statements = rotated()
    stranger = NoteKey()
    rows = {
        "log_key": ([keys[0].vkey, keys[1].vkey, stranger.vkey], statements[:1], [stranger]),
        "signature": ([keys[0].vkey, keys[1].vkey], statements[:1], [stranger]),
    }
    for fault, (vkeys, said, signers) in rows.items():
        export = Writer(RECORDS, signers, vkeys=vkeys, statements=said).write(tmp_path / fault)
        assert run(capsys, "export", export, "--log-key", keys[0].vkey)[:2] == (5, fault)
    forged = [statements[0], statements[1] | {"signed_by_old": statements[0]["signed_by_old"]}]
    export = Writer(RECORDS, keys[2:], vkeys=[key.vkey for key in keys], statements=forged).write(tmp_path / "forged")
    assert run(capsys, "export", export, "--log-key", keys[0].vkey)[:2] == (5, "log_key")


def test_where_one_statement_is_missing_the_version_after_it_is_all_that_has_to_be_trusted_besides(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keys, (first, _, *others) = rotated(count=5)
    vkeys = [key.vkey for key in keys]
    signers: dict[int, Sequence[NoteKey]] = {10: keys[:1], 20: keys[1:2], 30: keys[2:3]}
    export = Writer(RECORDS, keys[4:], (10, 20, 30), vkeys=vkeys, statements=[first, *others], signers=signers).write(
        tmp_path / "export"
    )

    assert run(capsys, "export", export, "--log-key", vkeys[0])[:2] == (5, "log_key")
    assert run(capsys, "export", export, "--log-key", vkeys[0], "--log-key", vkeys[1])[:2] == (5, "log_key")
    assert run(capsys, "export", export, "--log-key", vkeys[0], "--log-key", vkeys[2])[:2] == (0, None)


def test_an_older_log_key_does_not_sign_the_newest_checkpoint(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keys, statements = rotated()
    export = Writer(RECORDS, keys[:1], vkeys=[key.vkey for key in keys], statements=statements).write(tmp_path / "e")

    assert run(capsys, "export", export, "--log-key", keys[2].vkey)[:2] == (5, "signature")


def test_records_must_know_the_log_key(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, public_key, expected in (("own", LOG.spki.hex(), None), ("other", ECDSA_LOG.spki.hex(), "log_key")):
        entries = [published(at=0), pair("keys/audit-log/versions/1", at=0, public_key=public_key)]
        export = Writer(chained(entries), [LOG]).write(tmp_path / name)
        assert run(capsys, "export", export, "--log-key", LOG.vkey)[1] == expected


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive of the first segment and a bit, and an export of what comes after that segment."""
    entries = [published(at=0, quotas=()), pair(at=0)]
    for number in range(SEGMENT // 2 + 10):
        entries += [no_debits(number, at=number), ended(number, 2 + 2 * number, at=number)]
    records, folder = chained(entries), tmp_path_factory.mktemp("sealed")
    for name, first, end in (("archive", 0, SEGMENT + 8), ("export", SEGMENT, len(records)), ("short", 0, SEGMENT - 1)):
        Writer(records[:end], [LOG], (1000, 30_000), first=first).write(folder / name)
    other = rewritten(records[: SEGMENT + 8], lambda fields: fields[50_000].update(request_id="other"))
    Writer(other, [LOG]).write(folder / "forked")
    return folder


def test_archive_and_export_are_one_log(sealed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    key = ("--log-key", LOG.vkey)
    main(["export", str(sealed / "export"), *key, "--archive", str(sealed / "archive"), "--json"])
    whole = json.loads(capsys.readouterr().out)
    main(["export", str(sealed / "export"), *key, "--json"])
    alone = json.loads(capsys.readouterr().out)

    assert (whole["fault"], whole["records"], whole["types"]["sign.completed"]) == (
        None,
        SEGMENT + 22,
        SEGMENT // 2 + 10,
    )
    assert (alone["fault"], alone["records"]) == (None, 22)
    assert any("--archive" in note for note in alone["notes"])
    assert not any("--archive" in note for note in whole["notes"])


@pytest.mark.parametrize(("archive", "found"), [("short", (5, "gap")), ("forked", (5, "fork")), ("missing", (1, None))])
def test_archive_that_does_not_go_before_is_found(
    archive: str, found: tuple[int, str | None], sealed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = "--log-key", LOG.vkey, "--archive", sealed / archive

    assert run(capsys, "export", sealed / "export", *options)[:2] == found


def test_export_of_an_empty_log_is_fine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    export = Writer([], [LOG]).write(tmp_path / "export")

    assert run(capsys, "export", export, "--log-key", LOG.vkey)[:2] == (0, None)


@pytest.mark.parametrize("size", [1, 255, 256, 257, 512])
def test_export_of_any_size_is_fine(size: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    records = chained([published(at=0), *({"type": "appliance.started", "at": 1} for _ in range(size - 1))])
    export = Writer(records, [LOG], [0, size // 2]).write(tmp_path / "export")

    assert len(records) == size
    assert encode(json.loads(records[0])) == records[0]
    assert run(capsys, "export", export, "--log-key", LOG.vkey)[:2] == (0, None)
