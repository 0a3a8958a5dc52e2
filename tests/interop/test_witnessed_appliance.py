"""A whole appliance with a token, a real witness and places to push to: what an auditor holds in the end."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest

from hsmsigner.client import SigningClientError
from hsmsigner.transparency.cosignature import find_cosignature
from hsmsigner.transparency.note import read_note
from tests.e2e.appliance import KEY as SIGNING_KEY
from tests.e2e.appliance import PATIENCE_S, Appliance, running_appliance, until
from tests.interop.litewitness import KEY, Litewitness
from tests.interop.spicy import spicy, verified

ORIGIN = "bank.example/witnessed"
# A multi-process test on a machine that may be busy.
pytestmark = pytest.mark.timeout(240)


def settings(witness: Litewitness, folder: Path, **more: object) -> dict[str, object]:
    return {
        "origin": ORIGIN,
        "checkpoint_interval_s": 0.2,
        "witnesses": [{"vkey": KEY.vkey, "url": witness.url}],
        "quorum": 1,
        "push": [folder.as_uri()],
    } | more


def register(appliance: Appliance, witness: Litewitness) -> None:
    with appliance.client("auditor") as auditor:
        until(lambda: bool(auditor.get_log_status().newest_checkpoint.note), "a checkpoint")
        witness.register(ORIGIN, auditor.get_checkpoint().vkeys[0])


def sign(appliance: Appliance) -> int:
    with appliance.client() as engine:
        return int(engine.sign(SIGNING_KEY, b"pay").audit_sequence)


def sign_if_open(appliance: Appliance) -> None:
    with appliance.client() as engine, suppress(SigningClientError):
        engine.sign(SIGNING_KEY, b"pay", timeout_s=5.0)


def says_that_it_does_not_serve(appliance: Appliance) -> bool:
    with appliance.client("operator") as operator:
        return not operator.health("hsmsigner.v1.SigningService", PATIENCE_S)


def test_a_record_is_proven_to_somebody_who_trusts_the_witness_alone(torchwood: Path, tmp_path: Path) -> None:
    witness, pushed = Litewitness(torchwood, tmp_path), tmp_path / "pushed"
    with witness.running(), running_appliance(tmp_path, audit=settings(witness, pushed)) as appliance:
        register(appliance, witness)
        sequence = sign(appliance)
        with appliance.client("auditor") as auditor:
            until(lambda: auditor.get_log_status().newest_witnessed.size > sequence, "the signature is witnessed")
            status = auditor.get_log_status()
            proof = auditor.get_inclusion_proof(sequence=sequence, tree_size=status.newest_witnessed.size)
            vkey = auditor.get_checkpoint().vkeys[0]

        (state,) = status.witnesses
        assert (state.name, state.fault) == (KEY.name, "")
        assert state.cosigned_size >= status.newest_witnessed.size
        assert find_cosignature(KEY, *read_note(proof.checkpoint.note)) is not None
        file = spicy(tmp_path, sequence, proof.record.record, proof.hashes, proof.checkpoint.note)
        assert verified(torchwood, vkey, file)

        kept = pushed / "checkpoints" / str(proof.checkpoint.size)
        until(lambda: kept.exists() and kept.read_text() == proof.checkpoint.note, "the cosigned checkpoint is pushed")


def test_signing_stops_while_the_witness_is_away_and_resumes_by_itself(torchwood: Path, tmp_path: Path) -> None:
    witness = Litewitness(torchwood, tmp_path)
    audit = settings(witness, tmp_path / "pushed", without_quorum="stop")
    with running_appliance(tmp_path, audit=audit) as appliance:
        register(appliance, witness)
        assert sign(appliance)
        appliance.stop()
        appliance.configure(audit={"witness_patience_s": 1.0})

        with witness.running():
            appliance.start()
            assert sign(appliance)
        # The witness is gone before or after the last record was witnessed: one more surely is not.
        sign_if_open(appliance)
        until(lambda: says_that_it_does_not_serve(appliance), "signing stops and health says so")
        with appliance.client() as engine, pytest.raises(SigningClientError, match="too few witnesses"):
            engine.sign(SIGNING_KEY, b"pay", timeout_s=5.0)
        with appliance.client("auditor") as auditor:
            status = auditor.get_log_status()
            assert status.is_fail_closed
            assert status.witnesses[0].fault
        with witness.running():
            until(appliance.is_healthy, "it resumes")
            assert sign(appliance)
