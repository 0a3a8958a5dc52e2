"""Notes and verification keys, held against the published vectors of golang.org/x/mod/sumdb/note."""

from __future__ import annotations

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ed25519
from hypothesis import given
from hypothesis import strategies as st

from hsmsigner.transparency.note import (
    KeyType,
    NoteError,
    NoteKey,
    SignatureLine,
    add_lines,
    parse_vkey,
    read_lines,
    read_note,
    write_note,
)

# From the documentation of the Go package: its Example.
PETER = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
TEXT = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
NOTE = (
    TEXT + "\n— PeterNeumann "
    "x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
)
# The checksum database of Go's modules.
GO_SUMS = "sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8"


@pytest.mark.parametrize("vkey", [PETER, GO_SUMS])
def test_a_published_key_is_read_and_written_as_it_was(vkey: str) -> None:
    assert parse_vkey(vkey).vkey == vkey


def test_the_published_note_verifies_as_we_read_it() -> None:
    key = parse_vkey(PETER)
    text, (line,) = read_note(NOTE)

    assert (text, line.name, line.key_id) == (TEXT, key.name, key.key_id)
    public = ed25519.Ed25519PublicKey.from_public_bytes(key.public_key)
    public.verify(line.signature, text.encode())
    with pytest.raises(InvalidSignature):
        public.verify(line.signature, text.encode()[1:])


def test_the_published_note_is_written_to_the_byte() -> None:
    text, lines = read_note(NOTE)

    assert write_note(text, lines) == NOTE
    assert add_lines(NOTE, []) == NOTE
    assert add_lines(NOTE, lines) == NOTE


def test_the_kind_of_a_key_is_part_of_its_id() -> None:
    log, witness = (NoteKey("a.example", kind, bytes(32)) for kind in (KeyType.ED25519, KeyType.COSIGNATURE))

    assert log.key_id != witness.key_id
    assert parse_vkey(witness.vkey) == witness


def test_an_ecdsa_key_has_one_id_whatever_its_name() -> None:
    one, other = (NoteKey(name, KeyType.ECDSA, b"\x30 a SubjectPublicKeyInfo") for name in ("a", "b"))

    assert one.key_id == other.key_id
    assert parse_vkey(one.vkey) == one


def test_a_later_line_of_the_same_key_takes_the_place_of_the_earlier() -> None:
    first, other, later = (
        SignatureLine(name, b"1234", body) for name, body in (("w", b"at one"), ("x", b"x"), ("w", b"at two"))
    )
    note = add_lines(NOTE, [first, other])

    _, lines = read_note(add_lines(note, [later]))

    assert [line.signature for line in lines[1:]] == [b"at two", b"x"]


@pytest.mark.parametrize(
    ("vkey", "fault"),
    [
        ("", "type"),
        ("PeterNeumann", "type"),
        (PETER.replace("c74f20a3", "c74f20a4"), "id is c74f20a4"),
        (PETER.replace("Peter", "peter"), "but it is"),
        (PETER + "A", "base64"),
        ("a b+c74f20a3+" + PETER.rpartition("+")[2], "spaces"),
        ("a+00000000+AQ==", "32 bytes"),
        ("a+00000000+BwAA", "type"),
    ],
)
def test_what_is_no_key_is_refused(vkey: str, fault: str) -> None:
    with pytest.raises(NoteError, match=fault):
        parse_vkey(vkey)


@pytest.mark.parametrize(
    "note",
    [
        "",
        TEXT,
        TEXT + "\n",
        NOTE.removesuffix("\n"),
        NOTE.replace("— ", "- "),
        NOTE.replace("— PeterNeumann ", "— PeterNeumann"),
        NOTE.replace("PeterNeumann", "Peter+Neumann"),
        NOTE.replace("x08go", "x08g*"),
        TEXT + "\n— PeterNeumann x08gow==\n",
        NOTE.replace("answer", "answ\ter"),
    ],
)
def test_what_is_no_note_is_refused(note: str) -> None:
    with pytest.raises(NoteError):
        read_note(note)


def test_lines_alone_are_read_as_a_witness_answers_them() -> None:
    _, lines = read_note(NOTE)

    assert read_lines("".join(line.text for line in lines * 2)) == lines * 2
    with pytest.raises(NoteError):
        read_lines("")


@given(st.text(max_size=200))
def test_no_text_makes_reading_fail_in_another_way(text: str) -> None:
    for read in (read_note, read_lines, parse_vkey):
        try:
            read(text)
        except NoteError:
            continue
