"""`hsmsigner-verify` as a program: help, exit codes, what it prints, and what it needs to run."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from hsmsigner.verifier import fault
from hsmsigner.verifier.command import build_parser, main
from tests.bench.verify_export import run
from tests.verifier.export_writer import NoteKey, Writer, note_of
from tests.verifier.logs import chained, ended, honest, no_debits, pair, published

LOG, WITNESS = NoteKey(), NoteKey("witness.example/w1", 0x04)
RENAMED, SELF = NoteKey("witness.example/w2", 0x04, WITNESS.private), NoteKey("witness.example/w3", 0x04, LOG.private)
PROGRAM = (sys.executable, "-m", "hsmsigner.verifier")
LOADED = """
import sys
from hsmsigner.verifier.command import main
code = main(sys.argv[1:])
# _cffi_backend and _openssl are parts of cryptography.
own = {"hsmsigner", "cryptography", "_cffi_backend", "_openssl", "__main__"}
print(sorted({name.partition(".")[0] for name in sys.modules} - sys.stdlib_module_names - own), file=sys.stderr)
ours = {name.split(".")[1] for name in sys.modules if name.startswith("hsmsigner.")}
print(sorted(ours), file=sys.stderr)
sys.exit(code)
"""


@pytest.fixture
def export(tmp_path: Path) -> Path:
    return Writer(honest(30), [LOG, WITNESS], (10,)).write(tmp_path / "export")


def test_program_says_what_it_verified(export: Path) -> None:
    done = subprocess.run(
        [*PROGRAM, "export", export, "--log-key", LOG.vkey, "--witness", WITNESS.vkey],
        capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("verified: 62 records of log.example/appliance-1 are whole")
    assert "witness.example/w1 at 2027-01-15T08:00:00Z" in done.stdout


def test_program_prints_what_the_terminal_cannot_show(tmp_path: Path) -> None:
    entries = [published(at=0), pair(at=0), {"type": "証.明", "at": 1}]
    folder = Writer(chained(entries), [LOG]).write(tmp_path / "export")

    done = subprocess.run(
        [*PROGRAM, "export", folder, "--log-key", LOG.vkey], env=os.environ | {"PYTHONIOENCODING": "latin-1"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert (done.returncode, done.stderr) == (0, "")
    assert r"\u8a3c.\u660e 1" in done.stdout


def test_program_needs_nothing_but_the_standard_library_and_cryptography(export: Path) -> None:
    # -S and -I: neither what site-packages load by themselves, nor what lies around.
    paths = os.pathsep.join(path for path in sys.path if path)
    code = f"import sys; sys.path[:0] = {paths.split(os.pathsep)!r}\n{LOADED}"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code, "export", export, "--log-key", LOG.vkey],
        capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert (done.returncode, done.stderr.splitlines()) == (0, ["[]", "['verifier']"])


def test_progress_is_shown_on_a_terminal_and_wiped(tmp_path: Path) -> None:
    entries = [published(at=0, quotas=()), pair(at=0)]
    for number in range(9000):
        entries += [no_debits(number, at=number), ended(number, 2 + 2 * number, at=number)]
    export = Writer(chained(entries), [LOG]).write(tmp_path / "export")
    ours, theirs = os.openpty()
    try:
        done = subprocess.run(
            [*PROGRAM, "export", export, "--log-key", LOG.vkey],
            stdout=subprocess.PIPE, stderr=theirs, check=False,
        )  # fmt: skip
        shown = os.read(ours, 2**16).decode()
    finally:
        os.close(ours)
        os.close(theirs)

    assert done.returncode == 0
    assert "16,384 of 18,002 records" in shown
    assert shown.endswith("\r\x1b[K")


@pytest.mark.parametrize("command", ["export", "receipt", "checkpoints"])
def test_help_has_an_example_and_the_exit_codes(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main([command, "--help"])

    shown = capsys.readouterr().out
    assert left.value.code == 0
    assert f"example: hsmsigner-verify {command} " in shown
    assert "exit codes: 0" in shown


@pytest.mark.parametrize("arguments", [
    [],
    ["export"],
    ["export", "x"],
    ["export", "x", "--log-key", "nonsense"],
    ["export", "x", "--log-key", WITNESS.vkey],
    ["export", "x", "--log-key", LOG.vkey, "--log-key", NoteKey("other").vkey],
    ["export", "x", "--log-key", LOG.vkey, "--witness", LOG.vkey],
    ["export", "x", "--log-key", LOG.vkey, "--witness", WITNESS.vkey, "--quorum", "2"],
    ["export", "x", "--log-key", LOG.vkey, "--quorum", "-1"],
    ["export", "x", "--log-key", LOG.vkey, "--witness", WITNESS.vkey, "--witness", RENAMED.vkey],
    ["export", "x", "--log-key", LOG.vkey, "--witness", SELF.vkey],
    ["checkpoints", "x", "y", "--log-key", LOG.vkey],
    ["checkpoints", "x", "y", "--log-key", LOG.vkey, "--proof", "p", "--export", "e"],
])  # fmt: skip
def test_wrong_usage_ends_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(arguments)

    assert left.value.code == 2
    assert "usage:" in capsys.readouterr().err


def test_what_cannot_be_read_ends_with_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["export", "gone"], ["receipt", "gone"], ["checkpoints", "a", "b", "--proof", "c"]):
        given = [str(tmp_path / one) if len(one) == 1 or one == "gone" else one for one in arguments]
        assert main([*given, "--log-key", LOG.vkey]) == 1
        assert "cannot be read" in capsys.readouterr().err
        assert main([*given, "--log-key", LOG.vkey, "--json"]) == 1
        assert json.loads(capsys.readouterr().out)["error"] == "unreadable"


def test_a_log_that_was_set_back_says_what_nobody_can_check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    entries = [published(at=0), {"type": "log.rollback_accepted", "at": 1}, {"type": "log.memory_missing", "at": 2}]
    folder = Writer(chained(entries), [LOG]).write(tmp_path / "export")

    assert main(["export", str(folder), "--log-key", LOG.vkey]) == 0

    shown = capsys.readouterr().out
    assert "not checked: what was lost before record 1: " in shown
    assert "not checked: whether the log was set back before record 2: " in shown


def test_keys_may_be_in_files(export: Path, tmp_path: Path) -> None:
    (tmp_path / "log.vkey").write_text(f"{LOG.vkey}\n", "utf-8")

    assert main(["export", str(export), "--log-key", str(tmp_path / "log.vkey")]) == 0


def test_a_fault_is_printed_with_its_name_and_its_record(export: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (export / "checkpoint").write_text(note_of(honest(30), [NoteKey()]), "utf-8")

    assert main(["export", str(export), "--log-key", LOG.vkey]) == 5
    assert capsys.readouterr().out.startswith("FAULT signature: checkpoint is signed by no trusted key")


def test_quorum_is_asked_of_the_newest_checkpoint(export: Path) -> None:
    other = NoteKey("witness.example/w2", 0x04)
    witnesses = ["--witness", WITNESS.vkey, "--witness", other.vkey]

    assert main(["export", str(export), "--log-key", LOG.vkey, *witnesses]) == 5
    assert main(["export", str(export), "--log-key", LOG.vkey, *witnesses, "--quorum", "1"]) == 0


def test_every_fault_that_can_be_found_is_documented() -> None:
    sources = {path.name: path.read_text("utf-8") for path in Path(fault.__file__).parent.rglob("*.py")}
    del sources["continuity.py"]
    raised = set(re.findall(r'VerificationError\(\s*"(\w+)"', "".join(sources.values())))
    documented = set(re.findall(r"`(\w+)`[,:]", fault.__doc__ or ""))

    assert {"changed", "quota", "fork"} <= raised | documented
    assert raised <= documented


def test_commands_in_the_auditors_page_are_those_of_the_program() -> None:
    page = (Path(__file__).parents[2] / "docs" / "audit.md").read_text("utf-8")
    lines = re.findall(r"^    hsmsigner-verify ([^#\n]+)", page, re.MULTILINE)

    assert {build_parser().parse_args(shlex.split(line)).command for line in lines} == {
        "export", "receipt", "checkpoints",
    }  # fmt: skip


def test_the_bench_measures_a_log_that_is_fine() -> None:
    assert run(2000) == 0
