"""`hsmsigner doctor`: what is wrong, and what to do about it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer

from hsmsigner.cli.options import ConfigOption, JsonOption, StateOption, config_path
from hsmsigner.cli.output import ExitCode, print_finding, print_json, print_line
from hsmsigner.doctor import Finding, Level, diagnose


def doctor(
    state: StateOption = None,
    config: ConfigOption = None,
    *,
    skip_token: Annotated[
        bool, typer.Option("--skip-token", help="Do not log in to the token (one try with the configured PIN).")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Check settings, certificates, policy, store, clock, port and token. Exit code 3 when something is broken.

    Logs in to the token once, and not at all while an appliance runs on this folder: then that one is asked.

    Example: hsmsigner doctor --state ./appliance
    """
    findings: list[Finding] = []
    for finding in diagnose(config_path(state, config), datetime.now(UTC), with_token=not skip_token):
        findings.append(finding)
        if not as_json:
            print_finding(finding.level.value, finding.check, finding.message, finding.way_out)
    faults = sum(finding.level is Level.FAULT for finding in findings)
    if as_json:
        print_json(
            [
                {
                    "level": finding.level.value,
                    "check": finding.check,
                    "message": finding.message,
                    "way_out": finding.way_out,
                }
                for finding in findings
            ]
        )
    else:
        print_line(f"\n{faults} faults" if faults else "\nno faults")
    if faults:
        raise typer.Exit(ExitCode.CONFIGURATION)
