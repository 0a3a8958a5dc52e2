from __future__ import annotations

import json

import pytest

from hsmsigner.cli.output import (
    ExitCode,
    print_fault,
    print_fields,
    print_refusal,
    print_table,
    printable,
)
from hsmsigner.client import OutcomeUnknown, QuotaExceeded, SigningClientError, Unavailable

ROWS = [("keys/settlement-eu", "ECDSA_P256_SHA256", "ACTIVE"), ("keys/a", "ED25519", "SUSPENDED")]


def quota_exceeded() -> QuotaExceeded:
    return QuotaExceeded(
        "QUOTA_EXCEEDED",
        "quota burst is used up",
        metadata={"rule": "burst", "observed": "6", "limit": "5"},
        retry_after_s=8.25,
    )


def test_refusal_says_reason_rule_observed_limit_and_when_to_retry(capsys: pytest.CaptureFixture[str]) -> None:
    code = print_refusal(quota_exceeded(), as_json=False)

    printed = capsys.readouterr()
    assert code is ExitCode.REFUSED
    assert printed.out == ""
    for part in ("refused: QUOTA_EXCEEDED", "quota burst is used up", "burst", "6", "5", "8.2 s"):
        assert part in printed.err


def test_refusal_in_json_is_one_object_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    print_refusal(quota_exceeded(), as_json=True)

    error = json.loads(capsys.readouterr().err)["error"]
    assert error["reason"] == "QUOTA_EXCEEDED"
    assert error["metadata"] == {"rule": "burst", "observed": "6", "limit": "5"}
    assert error["retry_after_s"] == 8.25


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (quota_exceeded(), ExitCode.REFUSED),
        (Unavailable("QUEUE_FULL", "busy"), ExitCode.REFUSED),
        (Unavailable("CONNECTION_LOST", "nobody listens"), ExitCode.UNREACHABLE),
        (OutcomeUnknown("DEADLINE_PASSED", "no answer in time"), ExitCode.UNREACHABLE),
    ],
)
def test_exit_code_tells_a_refusal_from_no_answer(error: SigningClientError, code: ExitCode) -> None:
    assert print_refusal(error, as_json=True) is code


def test_text_from_elsewhere_cannot_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    hostile = "\x1b]0;owned\x07\x1b[2Jred\r[bold]markup[/bold] \u202eback"

    print_fields({"label": hostile})
    print_table(("label",), [(hostile,)], empty="")
    print_fault(hostile, as_json=False)
    print_refusal(SigningClientError("X" + hostile, hostile, metadata={hostile: hostile}), as_json=False)

    printed = capsys.readouterr()
    for character in ("\x1b", "\x07", "\r", "\u202e"):
        assert character not in printed.out + printed.err
    assert printed.out.count("[bold]markup[/bold]") == 2


def test_printable_text_is_left_as_it_is() -> None:
    assert printable("Größe 5 €\nzweite Zeile ✓") == "Größe 5 €\nzweite Zeile ✓"


def test_table_into_a_pipe_has_one_line_per_row_however_long(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("key", "algorithm", "state"), [(name * 20, *rest) for name, *rest in ROWS], empty="")

    lines = capsys.readouterr().out.splitlines()
    assert any("keys/settlement-eu" * 20 in line and "ACTIVE" in line for line in lines)


def test_table_that_does_not_fit_the_terminal_becomes_blocks(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "30")
    # Without it, a dumb terminal is taken to be 80 wide whatever COLUMNS says.
    monkeypatch.setenv("LINES", "25")
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "dumb")

    print_table(("key", "algorithm", "state"), ROWS, empty="")

    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 7
    assert "key" in lines[0]
    assert "keys/settlement-eu" in lines[0]
    assert "SUSPENDED" in lines[-1]


def test_empty_table_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("key",), [], empty="no keys")

    assert capsys.readouterr().out == "no keys\n"
