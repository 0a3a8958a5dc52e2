"""`hsmsigner init`: a new appliance in a folder."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from hsmsigner.cli.options import JsonOption
from hsmsigner.cli.output import print_fields, print_json, print_line
from hsmsigner.provision import DEFAULT_LISTEN, DEFAULT_TOKEN_LABEL, DEV_CLIENTS, initialise_state


def init(
    directory: Annotated[Path, typer.Argument(help="Folder to make; must not exist, or be empty.", metavar="DIR")],
    listen: Annotated[str, typer.Option(help="Where it will serve.", metavar="HOST:PORT")] = DEFAULT_LISTEN,
    server_name: Annotated[
        list[str] | None,
        typer.Option(help="Another DNS name or address for the server's certificate; repeatable.", metavar="NAME"),
    ] = None,
    token_label: Annotated[str, typer.Option(help="Label of the new token.", metavar="LABEL")] = DEFAULT_TOKEN_LABEL,
    *,
    as_json: JsonOption = False,
) -> None:
    """Make a development appliance: SoftHSM2 token, CA and certificates, settings, policy, client profiles.

    Example: hsmsigner init ./appliance && hsmsigner serve --state ./appliance
    """
    initialise_state(
        directory, now=datetime.now(UTC), listen=listen, server_names=server_name or (), token_label=token_label
    )
    profiles = {client.name: directory / "profiles" / f"{client.name}.yaml" for client in DEV_CLIENTS}
    if as_json:
        print_json(
            {
                "state": str(directory),
                "config": str(directory / "hsmsigner.yaml"),
                "policy": str(directory / "policy.yaml"),
                "profiles": {name: str(path) for name, path in profiles.items()},
            }
        )
        return
    print_line(f"made {directory}: a SoftHSM2 token, a development CA, settings and a policy to learn from")
    print_fields(
        {
            "start it": f"hsmsigner serve --state {directory}",
            "make a key": f"hsmsigner keys create settlement-eu --profile {profiles['operator']}",
            "sign": f"hsmsigner sign FILE --key keys/settlement-eu --profile {profiles['engine']}",
        }
    )
