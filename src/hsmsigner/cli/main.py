"""The command itself: puts the groups together, and turns what they raise into words and exit codes."""

from __future__ import annotations

import signal
import sys
from importlib.metadata import version
from typing import Annotated

import typer
from typer.exceptions import TyperException

from hsmsigner.cli import audit, keys, policy
from hsmsigner.cli.backup import backup, restore
from hsmsigner.cli.bench import bench
from hsmsigner.cli.doctor import doctor
from hsmsigner.cli.health import health
from hsmsigner.cli.init import init
from hsmsigner.cli.output import EXIT_CODE_MEANINGS, ExitCode, print_fault, print_refusal
from hsmsigner.cli.rotate import rotate
from hsmsigner.cli.serve import serve
from hsmsigner.cli.sign import sign
from hsmsigner.cli.standard_output import OutputLostError, guard_output
from hsmsigner.client import ProfileError, SigningClientError
from hsmsigner.errors import ConfigurationError
from hsmsigner.verifier import VerificationError

# What a shell says of a program whose reader has gone, and what scripts with `| head` expect.
_ENDED_BY_SIGPIPE = 128 + signal.SIGPIPE

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


def build_app() -> typer.Typer:
    """Put all commands together."""
    app = typer.Typer(
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        epilog=_EPILOG,
        context_settings={"max_content_width": 100},
    )
    app.callback()(_root)
    for command in (init, serve, doctor, health, sign, rotate, backup, restore, bench):
        app.command()(command)
    app.add_typer(keys.build_app(), name="keys")
    app.add_typer(policy.build_app(), name="policy")
    app.add_typer(audit.build_app(), name="audit")
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
        code = build_app()(prog_name="hsmsigner", standalone_mode=not as_json)
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
