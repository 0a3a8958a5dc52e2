"""`hsmsigner serve`: the appliance in the foreground."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from hsmsigner.cli.options import ConfigOption, StateOption, checked_reason, config_path
from hsmsigner.cli.output import ExitCode
from hsmsigner.supervisor import run_supervisor


def serve(
    state: StateOption = None,
    config: ConfigOption = None,
    accept_rollback: Annotated[
        str | None,
        typer.Option(
            "--accept-rollback",
            help="Go on, this once, with a log that is older than the token remembers, or another; why goes into it.",
            metavar="REASON",
        ),
    ] = None,
) -> None:
    """Serve until SIGTERM or Ctrl-C; what was authorized by then is finished first. Logs JSON lines to stderr.

    Example: hsmsigner serve --state ./appliance
    """
    reason = "" if accept_rollback is None else checked_reason(accept_rollback, "--accept-rollback")
    code = run_supervisor(config_path(state, config), reason)
    raise typer.Exit(ExitCode.CONFIGURATION if code == os.EX_CONFIG else code)
