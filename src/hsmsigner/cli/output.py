"""What every command prints and exits with: tables for people, JSON for programs, refusals on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from enum import IntEnum

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from hsmsigner.client import SigningClientError
from hsmsigner.client.errors import OutcomeUnknown


class ExitCode(IntEnum):
    """What the process ends with; the help text of the command is made from these."""

    DONE = 0
    REFUSED = 1
    USAGE = 2
    CONFIGURATION = 3
    UNREACHABLE = 4
    VERIFICATION = 5


EXIT_CODE_MEANINGS = {
    ExitCode.DONE: "done",
    ExitCode.REFUSED: "refused or failed; the reason is on stderr",
    ExitCode.USAGE: "wrong usage",
    ExitCode.CONFIGURATION: "fault in configuration or at start-up",
    ExitCode.UNREACHABLE: "server not reached, or outcome unknown (retry with the same --request-id)",
    ExitCode.VERIFICATION: "verification found a fault",
}

_GAP = "  "

# Reasons of the client itself: no server has answered.
_UNREACHED = frozenset({"UNREACHABLE", "CONNECTION_LOST", "CLIENT_CLOSED"})

# What to do, where the server's words alone do not say it to somebody at a terminal.
_WAYS_OUT = {
    "UNREACHABLE": "is the server running (`hsmsigner serve`), and is `server:` in the profile right?",
    "CONNECTION_LOST": "is the server running, and does it trust this profile's certificate? See `hsmsigner doctor`",
    "UNAUTHENTICATED": "the certificate in the profile is missing, expired, revoked or of another CA",
    "KEY_NOT_FOUND_OR_FORBIDDEN": "check the name, and that the policy grants this right to the profile's principal",
    "FORBIDDEN": "the policy must grant this right to the profile's principal",
    "REQUEST_ID_REUSED": "leave --request-id out for a new request, or repeat it with exactly the same input",
    "NO_KEY_POLICY": "add an entry under `keys:` that matches it, then `hsmsigner policy publish`",
}


def print_json(value: object) -> None:
    """Write one JSON document to stdout."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def print_line(text: str) -> None:
    """Write one line for people to stdout."""
    _console().print(Text(printable(text)), soft_wrap=True)


def print_fields(fields: Mapping[str, str]) -> None:
    """Write names and values below one another; long values run on, so that they can be copied whole."""
    width = max(map(len, fields), default=0)
    console = _console()
    for name, value in fields.items():
        line = Text.assemble(
            (name.ljust(width), "bold"), "  ", printable(value).replace("\n", "\n" + " " * (width + 2))
        )
        console.print(line, soft_wrap=True)


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, empty: str) -> None:
    """Write a table, or where it does not fit the terminal, one block of names and values per row."""
    if not rows:
        print_line(empty)
        return
    cells = [[printable(cell) for cell in row] for row in rows]
    console = _console()
    widths = [max(map(cell_len, column)) for column in zip(columns, *cells, strict=True)]
    if sum(widths) + len(_GAP) * (len(widths) - 1) > console.width:
        for index, row in enumerate(cells):
            if index:
                console.print()
            print_fields(dict(zip(columns, row, strict=True)))
        return
    console.print(Text(_aligned(columns, widths), style="bold"), soft_wrap=True)
    for row in cells:
        console.print(Text(_aligned(row, widths)), soft_wrap=True)


def _aligned(cells: Sequence[str], widths: Sequence[int]) -> str:
    return _GAP.join(cell + " " * (width - cell_len(cell)) for cell, width in zip(cells, widths, strict=True)).rstrip()


def print_finding(level: str, check: str, message: str, way_out: str) -> None:
    """Write one result of a check, and under it what to do."""
    mark, style = {"OK": ("ok  ", "green"), "WARNING": ("warn", "yellow")}.get(level, ("FAIL", "bold red"))
    console = _console()
    text = printable(message).replace("\n", "\n      ")
    console.print(Text.assemble((mark, style), "  ", (f"{check}: ", "bold"), text), soft_wrap=True)
    if way_out:
        console.print(Text(f"      → {printable(way_out)}"), soft_wrap=True)


def print_progress(text: str) -> None:
    """Replace the last progress line on stderr; says nothing where nobody watches."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[K{text}")
        sys.stderr.flush()


def print_refusal(error: SigningClientError, *, as_json: bool) -> ExitCode:
    """Say on stderr why the answer is no, what was observed, and the way out; returns the exit code."""
    code = ExitCode.UNREACHABLE if isinstance(error, OutcomeUnknown) or error.reason in _UNREACHED else ExitCode.REFUSED
    if as_json:
        fields = {
            "reason": error.reason,
            "message": error.message,
            "metadata": error.metadata,
            "retry_after_s": error.retry_after_s,
        }
        sys.stderr.write(json.dumps({"error": fields}) + "\n")
        return code
    console = _console(stderr=True)
    head = "no answer" if code is ExitCode.UNREACHABLE else "refused"
    console.print(Text.assemble((f"{head}: {printable(error.reason)}", "bold red")), soft_wrap=True)
    details = {"why": error.message, **error.metadata}
    if error.retry_after_s is not None:
        details["retry after"] = f"{error.retry_after_s:.1f} s"
    if way_out := _WAYS_OUT.get(error.reason):
        details["way out"] = way_out
    width = max(map(len, details))
    for name, value in details.items():
        console.print(Text(f"  {printable(name).ljust(width)}  {printable(value)}"), soft_wrap=True)
    return code


def print_fault(message: str, *, as_json: bool, **details: str | int | None) -> None:
    """Say on stderr what is wrong: settings, profile, files, a log that does not verify. `details` are for JSON."""
    if as_json:
        sys.stderr.write(json.dumps({"error": {"message": message, **details}}) + "\n")
        return
    _console(stderr=True).print(Text.assemble(("error: ", "bold red"), printable(message)), soft_wrap=True)


def printable(text: str) -> str:
    """Write control characters out, so that text from elsewhere cannot steer the terminal."""
    return "".join(
        character if character.isprintable() or character == "\n" else repr(character)[1:-1] for character in text
    )


def _console(*, stderr: bool = False) -> Console:
    console = Console(stderr=stderr, highlight=False, emoji=False)
    # Into a file or a pipe nothing is wrapped or cut: the next program wants whole lines.
    return console if console.is_terminal else Console(stderr=stderr, highlight=False, emoji=False, width=10_000)
