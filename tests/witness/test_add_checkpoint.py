"""The client of tlog-witness, against a witness that keeps the protocol."""

from __future__ import annotations

import asyncio
import base64
from dataclasses import replace

import pytest

from hsmsigner.operations.ports.witness import Cosignature, Fault, FaultKind
from hsmsigner.transparency.note import add_lines
from hsmsigner.witness.client import request_body
from tests.witness.asking import CHECKPOINT, GOOD, TWIN, ask, client, signed_by
from tests.witness.twins import (
    COSIGN_TIME_S,
    LogTwin,
    WitnessTwin,
    always,
    http,
    played_by,
)


def test_a_first_checkpoint_is_cosigned_without_a_proof() -> None:
    witness = WitnessTwin()

    answer = ask(played_by(witness))

    assert answer == Cosignature(witness.line(CHECKPOINT.note), COSIGN_TIME_S)
    assert witness.asked == ["old 0"]
    assert witness.size == CHECKPOINT.size


def test_a_larger_checkpoint_is_cosigned_with_the_proof_from_the_size_it_knows() -> None:
    witness = WitnessTwin()
    ask(played_by(witness), log=LogTwin.of(41))

    assert isinstance(ask(played_by(witness), 41), Cosignature)
    assert witness.asked == ["old 0", "old 41"]


@pytest.mark.parametrize("believed", [0, 7, 70, 100])
def test_where_the_witness_knows_another_size_it_gets_the_proof_from_there(believed: int) -> None:
    witness = WitnessTwin()
    ask(played_by(witness), log=LogTwin.of(41))

    assert isinstance(ask(played_by(witness), believed), Cosignature)
    assert witness.asked[-1] == "old 41"


def test_the_same_checkpoint_is_cosigned_again() -> None:
    witness = WitnessTwin()
    ask(played_by(witness))

    assert isinstance(ask(played_by(witness), 70), Cosignature)


def test_a_fork_is_refused_and_said_to_be_one() -> None:
    witness = WitnessTwin()
    ask(played_by(witness), log=LogTwin.of(41))

    answer = ask(played_by(witness), 41, log=LogTwin.of(70, "other"))

    assert isinstance(answer, Fault)
    assert answer.kind is FaultKind.CONTRADICTED


def test_a_fork_of_the_same_size_is_refused_and_said_to_be_one() -> None:
    witness = WitnessTwin()
    ask(played_by(witness))

    for believed in (0, 70):
        answer = ask(played_by(witness), believed, log=LogTwin.of(70, "other"))
        assert isinstance(answer, Fault)
        assert answer.kind is FaultKind.CONTRADICTED
        assert "another tree of 70 records" in answer.message


def test_a_log_that_went_back_is_told() -> None:
    witness = WitnessTwin()
    ask(played_by(witness))

    answer = ask(played_by(witness), log=LogTwin.of(41))

    assert isinstance(answer, Fault)
    assert answer.kind is FaultKind.CONTRADICTED
    assert "has cosigned 70 records, and is shown 41" in answer.message


def test_lines_of_strangers_in_the_answer_are_left_out() -> None:
    stranger = WitnessTwin("stranger.example/w").line(CHECKPOINT.note).text.encode()

    answer = ask(always(http(200, stranger + GOOD)))

    assert isinstance(answer, Cosignature)
    assert answer.line.name == TWIN.name


def test_the_request_is_to_the_byte_what_the_protocol_says() -> None:
    cosigned = add_lines(CHECKPOINT.note, [WitnessTwin("other.example/w").line(CHECKPOINT.note)])

    body = request_body(cosigned, 41, [b"\x01" * 32, b"\x02" * 32])

    one, two = (base64.b64encode(bytes([number]) * 32) for number in (1, 2))
    assert body == b"old 41\n" + one + b"\n" + two + b"\n\n" + CHECKPOINT.note.encode()
    assert request_body(CHECKPOINT.note, 0, []) == b"old 0\n\n" + CHECKPOINT.note.encode()


def test_an_answer_in_chunks_or_ended_by_the_connection_is_read() -> None:
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"%x\r\n%s\r\n0\r\n\r\n" % (len(GOOD), GOOD)

    assert isinstance(ask(always(chunked)), Cosignature)
    assert isinstance(ask(always(b"HTTP/1.0 200 OK\r\n\r\n" + GOOD)), Cosignature)


def test_an_answer_counts_although_the_server_never_hangs_up() -> None:
    async def answer(_m: str, _p: str, _h: dict[str, str], _b: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(http(200, GOOD))
        await asyncio.Event().wait()

    # The client would wait for longer than `ask` does.
    assert isinstance(ask(answer, timeout_s=600.0), Cosignature)


def test_a_line_is_found_in_a_note_only_when_it_verifies() -> None:
    witness = client("http://127.0.0.1:1")
    line = TWIN.line(CHECKPOINT.note)
    wrong = replace(line, signature=signed_by("mallory"))

    assert witness.find_cosignature(CHECKPOINT.note) is None
    assert witness.find_cosignature(add_lines(CHECKPOINT.note, [line])) == Cosignature(line, COSIGN_TIME_S)
    assert witness.find_cosignature(add_lines(CHECKPOINT.note, [wrong])) is None
    assert f"\n{witness.line_start}" in add_lines(CHECKPOINT.note, [line])
