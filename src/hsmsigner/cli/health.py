"""`hsmsigner health`: whether an appliance can do its work, for orchestrators and scripts.

Also a program of its own (`python -m hsmsigner.cli.health`, no arguments, the profile in HSMSIGNER_HEALTH_PROFILE): a
container's health check runs every few seconds, and this loads half of what the whole command line does.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from hsmsigner.cli.options import JsonOption, ProfileOption
from hsmsigner.client import ProfileError, SignerClient, SigningClientError

_TIMEOUT_S = 4.0


def health(
    profile: ProfileOption,
    service: Annotated[
        str,
        typer.Option(help="One service, such as hsmsigner.v1.SigningService; hsmsigner.pairs: no key pair is missing."),
    ] = "",
    timeout_s: Annotated[float, typer.Option("--timeout", help="Seconds to wait for an answer.", min=0.1)] = _TIMEOUT_S,
    *,
    as_json: JsonOption = False,
) -> None:
    """Ask grpc.health.v1: exit 0 when the token answers and the log can be written, 1 when not, 4 without an answer.

    Any certificate that the server trusts may ask; no grant is needed.

    Example: hsmsigner health --profile appliance/profiles/stranger.yaml
    """
    # Here: `main` below must not pay for rich.
    from hsmsigner.cli.output import ExitCode, print_json, print_line  # noqa: PLC0415

    with SignerClient.from_profile(profile) as client:
        is_serving = client.health(service, timeout_s)
    if as_json:
        print_json({"service": service, "serving": is_serving})
    else:
        print_line("serving" if is_serving else "not serving")
    if not is_serving:
        raise typer.Exit(ExitCode.REFUSED)


def main() -> int:
    """The container's health check; docker knows 0 for healthy and 1 for not."""
    try:
        with SignerClient.from_profile(Path(os.environ["HSMSIGNER_HEALTH_PROFILE"])) as client:
            is_serving = client.health("", _TIMEOUT_S)
    except (KeyError, ProfileError, SigningClientError) as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        return 1
    sys.stdout.write("serving\n" if is_serving else "not serving\n")
    return 0 if is_serving else 1


if __name__ == "__main__":
    sys.exit(main())
