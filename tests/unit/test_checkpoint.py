"""The text of a checkpoint, to the byte (docs/log-format.md)."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hsmsigner.transparency.checkpoint import CheckpointBody, parse_checkpoint, parse_text
from hsmsigner.transparency.note import NoteError, SignatureLine, write_note

EMPTY_ROOT = hashlib.sha256(b"").digest()
EMPTY_TEXT = "bank.example/log\n0\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n"


def test_the_text_is_three_lines() -> None:
    assert CheckpointBody("bank.example/log", 0, EMPTY_ROOT).text == EMPTY_TEXT


@given(st.integers(0, 2**63), st.binary(min_size=32, max_size=32))
def test_what_was_written_is_read_back(size: int, root: bytes) -> None:
    body = CheckpointBody("bank.example/log", size, root)
    note = write_note(body.text, [SignatureLine("bank.example/log", b"1234", b"signature")])

    assert parse_text(body.text) == body
    assert parse_checkpoint(note) == body


def test_lines_that_others_add_are_ignored() -> None:
    assert parse_text(EMPTY_TEXT + "more\n").size == 0


@pytest.mark.parametrize(
    "text",
    [
        "",
        "bank.example/log\n0\n",
        EMPTY_TEXT.removesuffix("\n"),
        EMPTY_TEXT.replace("\n0\n", "\n00\n"),
        EMPTY_TEXT.replace("\n0\n", "\n+1\n"),
        EMPTY_TEXT.replace("\n0\n", f"\n{'9' * 5000}\n"),
        EMPTY_TEXT.replace("\n0\n", "\n-1\n"),
        EMPTY_TEXT.replace("\n0\n", "\n\n"),
        EMPTY_TEXT.replace("\n0\n", "\n\N{SUPERSCRIPT TWO}\n"),
        EMPTY_TEXT.replace("47DE", "47D"),
        EMPTY_TEXT.replace("47DE", ""),
        EMPTY_TEXT.replace("47DE", "47*E"),
        EMPTY_TEXT.replace("bank.example/log", ""),
        EMPTY_TEXT.replace("bank.example/log", "bank example"),
    ],
)
def test_what_is_no_checkpoint_is_refused(text: str) -> None:
    with pytest.raises(NoteError):
        parse_text(text)
