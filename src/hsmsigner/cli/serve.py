"""`hsmsigner serve`: the appliance in the foreground."""

from __future__ import annotations

import os

import typer

from hsmsigner.cli.options import ConfigOption, StateOption, config_path
from hsmsigner.cli.output import ExitCode
from hsmsigner.supervisor import run_supervisor


def serve(state: StateOption = None, config: ConfigOption = None) -> None:
    """Serve until SIGTERM or Ctrl-C; what was authorized by then is finished first. Logs JSON lines to stderr.

    Example: hsmsigner serve --state ./appliance
    """
    code = run_supervisor(config_path(state, config))
    raise typer.Exit(ExitCode.CONFIGURATION if code == os.EX_CONFIG else code)
