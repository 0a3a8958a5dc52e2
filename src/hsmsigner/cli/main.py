"""The command itself: puts the groups together, and turns what they raise into words and exit codes."""

from __future__ import annotations

import signal
import sys
from importlib import import_module
from importlib.metadata import version
from typing import Annotated

import typer
from typer.exceptions import TyperException

from hsmsigner.cli.output import EXIT_CODE_MEANINGS, ExitCode, print_fault, print_refusal
from hsmsigner.cli.standard_output import OutputLostError, guard_output
from hsmsigner.client import ProfileError, SigningClientError
from hsmsigner.errors import ConfigurationError
from hsmsigner.verifier import VerificationError

# What a shell says of a program whose reader has gone, and what scripts with `| head` expect.
_ENDED_BY_SIGPIPE = 128 + signal.SIGPIPE

# Where each command lives: in a function of its name, or, for a group, in what `build_app` of the module makes.
_COMMANDS = {
    "init": "init",
    "serve": "serve",
    "doctor": "doctor",
    "health": "health",
    "sign": "sign",
    "rotate": "rotate",
    "backup": "backup",
    "restore": "backup",
    "bench": "bench",
}
_GROUPS = ("keys", "policy", "audit")

_EPILOG = "\n\n".join(
    ("Exit codes:", *(f"{code.value}  {EXIT_CODE_MEANINGS[code]}" for code in ExitCode)),
)


def _print_version(is_asked: bool) -> None:  # noqa: FBT001 - the form typer calls it in
    if is_asked:
        sys.stdout.write(f"hsmsigner {version('hsmsigner')}\n")
        raise typer.Exit


def _root(
    *,
    show_version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """A signing appliance in front of a PKCS#11 token: authenticated, decided, counted and recorded, then signed."""


def build_app(wanted: str = "") -> typer.Typer:
    """Put the commands together: all of them, or only the one that is wanted, which starts in a third of the time."""
    app = typer.Typer(
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        epilog=_EPILOG,
        context_settings={"max_content_width": 100},
    )
    app.callback()(_root)
    is_known = wanted in _COMMANDS or wanted in _GROUPS
    for name, module in _COMMANDS.items():
        if not is_known or name == wanted:
            app.command(name)(getattr(import_module(f"hsmsigner.cli.{module}"), name))
    for name in _GROUPS:
        if not is_known or name == wanted:
            app.add_typer(import_module(f"hsmsigner.cli.{name}").build_app(), name=name)
    return app


def main() -> None:
    """Run the command line of this process; always ends it with one of `ExitCode`, or as if by a signal."""
    as_json = "--json" in sys.argv
    guard_output()
    try:
        try:
            _run(as_json=as_json)
        finally:
            sys.stdout.flush()
    except OutputLostError as error:
        if error.is_unwanted:
            sys.exit(_ENDED_BY_SIGPIPE)
        print_fault(str(error), as_json=as_json)
        sys.exit(ExitCode.REFUSED)


def _run(*, as_json: bool) -> None:
    try:
        # In JSON mode typer leaves the printing of usage errors, and the exit, to us.
        code = build_app(next(iter(sys.argv[1:]), ""))(prog_name="hsmsigner", standalone_mode=not as_json)
        sys.exit(code or ExitCode.DONE)
    except TyperException as error:
        print_fault(error.format_message(), as_json=as_json)
        sys.exit(error.exit_code)
    except typer.Abort:
        print_fault("aborted", as_json=as_json)
        sys.exit(ExitCode.REFUSED)
    except SigningClientError as error:
        sys.exit(print_refusal(error, as_json=as_json))
    except VerificationError as error:
        print_fault(str(error), as_json=as_json, fault=error.fault, sequence=error.sequence)
        sys.exit(ExitCode.VERIFICATION)
    except (ConfigurationError, ProfileError) as error:
        print_fault(str(error), as_json=as_json)
        sys.exit(ExitCode.CONFIGURATION)


if __name__ == "__main__":
    main()
