"""`hsmsigner keys verify-continuity`: a file, a trusted key, no server."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from hsmsigner.cli.output import ExitCode
from tests.continuity import chain_of, document_of, make_pair, make_pairs

PAIRS = make_pairs(3)


def verify(folder: Path, *words: str, document: bytes | None = None) -> subprocess.CompletedProcess[str]:
    (folder / "chain.json").write_bytes(document_of(chain_of(PAIRS)) if document is None else document)
    (folder / "first.pem").write_bytes(PAIRS[0].pem)
    (folder / "today.pem").write_bytes(PAIRS[-1].pem)
    (folder / "other.pem").write_bytes(make_pair().pem)
    return subprocess.run(
        [sys.executable, "-m", "hsmsigner", "keys", "verify-continuity", "chain.json", *words],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_good_chain_is_told_version_by_version_and_gives_todays_key(tmp_path: Path) -> None:
    done = verify(tmp_path, "--trusted", "first.pem", "--current", "today.pem", "--out", "found.pem")

    assert done.returncode == ExitCode.DONE, done
    assert "2 rotations" in done.stdout
    assert "keys/settlement-eu/versions/3  signs from 2027-" in done.stdout
    assert (tmp_path / "found.pem").read_bytes() == PAIRS[-1].pem


def test_answer_for_programs_names_the_newest_key(tmp_path: Path) -> None:
    answer = json.loads(verify(tmp_path, "--trusted", "first.pem", "--json").stdout)

    assert (answer["newest"], answer["fault"]) == ("keys/settlement-eu/versions/3", None)
    assert answer["public_key"].encode() == PAIRS[-1].pem


@pytest.mark.parametrize(
    ("words", "document", "fault"),
    [
        (["--trusted", "other.pem"], None, "first_key"),
        (["--trusted", "first.pem", "--current", "other.pem"], None, "truncated"),
        (["--trusted", "chain.json"], None, "trusted"),
        (["--trusted", "first.pem"], b"{}", "unparsable"),
        (["--trusted", "first.pem"], document_of(chain_of(make_pairs(2, key_id="other"))), "other_key"),
    ],
)
def test_fault_has_its_exit_code_and_its_name(
    tmp_path: Path, words: list[str], document: bytes | None, fault: str
) -> None:
    done = verify(tmp_path, *words, "--json", document=document)

    assert done.returncode == ExitCode.VERIFICATION, done
    assert json.loads(done.stderr)["error"]["fault"] == fault
