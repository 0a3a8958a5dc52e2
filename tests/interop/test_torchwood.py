"""Debian's torchwood: its witness cosigns our checkpoints, and its verifier accepts our proofs with them."""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from hsmsigner.operations.ports import Checkpoint
from hsmsigner.operations.ports.witness import Cosignature, Fault, FaultKind
from hsmsigner.transparency.note import add_lines
from hsmsigner.witness.client import HttpWitness
from hsmsigner.witness.setup import make_witnesses
from tests.interop.litewitness import KEY, Litewitness
from tests.interop.spicy import spicy, verified
from tests.witness.twins import ORIGIN, LogTwin, seeded_key

LARGE = LogTwin.of(66_000)
DEADLINE_S = 20.0


class Asked(Litewitness):
    """A litewitness, and our client of it."""

    @property
    def client(self) -> HttpWitness:
        return make_witnesses([(KEY.vkey, self.url)])[0]

    def ask(self, log: LogTwin, size: int | None = None, believed: int = 0) -> Cosignature | Fault:
        checkpoint = log.checkpoint(size)

        async def prove(old_size: int) -> list[bytes]:
            return log.tree(size).consistency_proof(old_size)

        return asyncio.run(asyncio.wait_for(self.client.add_checkpoint(checkpoint, believed, prove), DEADLINE_S))


@pytest.fixture
def witness(torchwood: Path, tmp_path: Path) -> Iterator[Asked]:
    """One that knows LogTwin's log."""
    one = Asked(torchwood, tmp_path)
    one.register(ORIGIN, LogTwin([]).key.vkey)
    with one.running():
        yield one


def test_it_writes_its_verification_key_as_we_do(witness: Asked) -> None:
    said = re.search(r"vkey=(\S+)", witness.printed)

    assert said is not None
    assert said[1].strip('"') == KEY.vkey


def test_it_cosigns_a_log_that_grows_one_by_one(witness: Asked) -> None:
    log = LogTwin.of(60)

    for size in range(1, 61):
        answer = witness.ask(log, size, size - 1)

        assert isinstance(answer, Cosignature), answer
        assert abs(answer.time_s - time.time()) < 60


def test_it_cosigns_a_log_that_grows_in_leaps(witness: Asked) -> None:
    chance = random.Random(6)  # noqa: S311 - the same sizes each time
    believed = 0
    for size in sorted(chance.sample(range(1, len(LARGE.records)), 40)):
        assert isinstance(witness.ask(LARGE, size, believed), Cosignature)
        believed = size


@pytest.mark.parametrize("believed", [0, 3, 40])
def test_it_says_which_size_it_knows_and_gets_the_proof_from_there(witness: Asked, believed: int) -> None:
    log = LogTwin.of(60)
    assert isinstance(witness.ask(log, 41), Cosignature)

    assert isinstance(witness.ask(log, 60, believed), Cosignature)


def test_it_cosigns_the_same_checkpoint_twice(witness: Asked) -> None:
    log = LogTwin.of(60)

    assert isinstance(witness.ask(log), Cosignature)
    assert isinstance(witness.ask(log), Cosignature)


@pytest.mark.parametrize("size", [41, 60])
def test_it_refuses_a_fork(witness: Asked, size: int) -> None:
    assert isinstance(witness.ask(LogTwin.of(60), 41), Cosignature)

    answer = witness.ask(LogTwin.of(60, "other"), size, 41)

    assert isinstance(answer, Fault)
    assert answer.kind is FaultKind.CONTRADICTED


def test_it_refuses_an_altered_proof(witness: Asked) -> None:
    log = LogTwin.of(60)
    assert isinstance(witness.ask(log, 41), Cosignature)

    async def prove(old_size: int) -> list[bytes]:
        first, *others = log.tree().consistency_proof(old_size)
        return [bytes([first[0] ^ 1]) + first[1:], *others]

    answer = asyncio.run(asyncio.wait_for(witness.client.add_checkpoint(log.checkpoint(), 41, prove), DEADLINE_S))

    assert isinstance(answer, Fault)
    assert answer.kind is FaultKind.CONTRADICTED


def test_it_knows_that_a_log_went_back(witness: Asked) -> None:
    log = LogTwin.of(60)
    assert isinstance(witness.ask(log, 60), Cosignature)

    answer = witness.ask(log, 41)

    assert isinstance(answer, Fault)
    assert answer.kind is FaultKind.CONTRADICTED
    assert "went back" in answer.message


def test_it_refuses_a_log_that_it_does_not_know_and_a_key_that_it_does_not_trust(witness: Asked) -> None:
    stranger = replace(LogTwin.of(5), origin="stranger.example/log")
    thief = replace(LogTwin.of(5), signer=seeded_key("thief"))

    for log in (stranger, thief):
        answer = witness.ask(log)
        assert isinstance(answer, Fault)
        assert answer.kind is FaultKind.REFUSED


def test_a_rotated_log_key_is_refused_until_it_is_registered(witness: Asked) -> None:
    rotated = replace(LogTwin.of(60), signer=seeded_key("log, second version"))
    assert isinstance(witness.ask(LogTwin.of(60), 41), Cosignature)

    assert isinstance(witness.ask(rotated), Fault)
    witness.trust(ORIGIN, rotated.key.vkey)
    assert isinstance(witness.ask(rotated), Cosignature)


@pytest.mark.parametrize("size", [*range(1, 61), 256, 257, 65_537])
def test_its_verifier_accepts_our_proofs(torchwood: Path, tmp_path: Path, size: int) -> None:
    indexes = range(size) if size <= 60 else sorted({0, 255, size // 2, size - 1})
    checkpoint = LARGE.checkpoint(size)
    files = [proven(tmp_path, LARGE, index, checkpoint) for index in indexes]

    assert verified(torchwood, LARGE.key.vkey, *files)


def test_its_verifier_accepts_them_with_the_lines_of_its_witness(
    torchwood: Path, tmp_path: Path, witness: Asked
) -> None:
    log = LogTwin.of(60)
    answer = witness.ask(log)
    assert isinstance(answer, Cosignature)
    checkpoint = log.checkpoint()

    file = proven(tmp_path, log, 17, replace(checkpoint, note=add_lines(checkpoint.note, [answer.line])))

    assert verified(torchwood, log.key.vkey, file)


def test_its_verifier_refuses_what_was_altered(torchwood: Path, tmp_path: Path) -> None:
    log, vkey = LogTwin.of(60), LogTwin([]).key.vkey
    file = proven(tmp_path, log, 17, log.checkpoint())
    proof, record = file.with_suffix(".spicy"), file.read_bytes()
    whole = proof.read_text()
    assert verified(torchwood, vkey, file)

    lines = whole.split("\n")
    wrong = [
        whole.replace("index 17", "index 18"),
        "\n".join([lines[0], *lines[2:]]),
        "\n".join([lines[0], lines[2], lines[1], *lines[3:]]),
        whole.replace("\n60\n", "\n61\n"),
        whole.replace(log.checkpoint().note, log.checkpoint(59).note),
        whole.replace(log.checkpoint().note, replace(log, signer=seeded_key("thief")).checkpoint().note),
    ]
    for text in wrong:
        assert text != whole
        proof.write_text(text)
        assert not verified(torchwood, vkey, file)
    proof.write_text(whole)
    file.write_bytes(record + b"!")
    assert not verified(torchwood, vkey, file)


def proven(folder: Path, log: LogTwin, index: int, checkpoint: Checkpoint) -> Path:
    proof = log.tree(checkpoint.size).inclusion_proof(index)
    return spicy(folder, index, log.records[index], proof, checkpoint.note)
