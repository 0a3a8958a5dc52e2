"""`hsmsigner keys continuity` and `keys verify-continuity`: from a key that is trusted to today's, without asking."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from hsmsigner.cli.options import JsonOption, KeyArgument, OutOption, ProfileOption, key_name, read_input, write_output
from hsmsigner.cli.output import print_fields, print_json, print_line
from hsmsigner.client import SignerClient
from hsmsigner.verifier import verify_continuity as verify


def add_commands(app: typer.Typer) -> None:
    """Add them to `keys`."""
    app.command()(continuity)
    app.command("verify-continuity")(verify_continuity)


def continuity(key: KeyArgument, profile: ProfileOption, out: OutOption = None, *, as_json: JsonOption = False) -> None:
    """Fetch the statements by which the versions of a key vouch for each other, for `keys verify-continuity`.

    Example: hsmsigner keys continuity settlement-eu --out settlement-eu.continuity.json
    """
    name = key_name(key)
    with SignerClient.from_profile(profile) as client:
        statements = [
            {
                "old_version": statement.old_version,
                "new_version": statement.new_version,
                "signed_by_old": statement.signed_by_old,
                "signed_by_new": statement.signed_by_new,
            }
            for statement in client.list_continuity_statements(name)
        ]
    document = {"key": name, "statements": statements}
    if out is not None:
        write_output(out, (json.dumps(document, indent=2) + "\n").encode())
    if as_json or out is None:
        print_json(document)
    else:
        print_line(f"wrote {_counted(len(statements), 'statement')} of {name} to {out}")


def verify_continuity(
    file: Annotated[Path, typer.Argument(help="What `keys continuity` wrote; - is standard input.", metavar="FILE")],
    trusted: Annotated[
        Path, typer.Option(help="The public key that you trust, in PEM.", metavar="FILE", exists=True, dir_okay=False)
    ],
    current: Annotated[
        Path | None,
        typer.Option(help="Today's public key, in PEM: the chain must end there.", metavar="FILE", exists=True),
    ] = None,
    out: OutOption = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """Walk from a public key that you trust to today's, offline. Exit code 5 when something is wrong.

    --out writes today's public key. Nothing of the server's own code is used to check.

    Example: hsmsigner keys verify-continuity settlement-eu.continuity.json --trusted first.pem --current today.pem
    """
    found = verify(read_input(file), read_input(trusted), None if current is None else read_input(current))
    newest = found.versions[-1]
    if out is not None:
        write_output(out, newest.pem.encode())
    if as_json:
        print_json(
            {
                "key": found.key,
                "versions": [version.name for version in found.versions],
                "activate_times": list(found.activate_times),
                "newest": newest.name,
                "public_key": newest.pem,
                "fault": None,
            }
        )
        return
    print_fields(
        {"verified": f"{found.key}: {_counted(len(found.versions) - 1, 'rotation')}, each signed by both versions"}
    )
    for version, time in zip(found.versions, ("trusted", *found.activate_times), strict=True):
        print_line(f"  {version.name}  {time if time == 'trusted' else 'signs from ' + time[:19] + 'Z'}")
    if current is None:
        print_line("whether newer statements exist, only --current (today's public key) can tell")


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'s'[: number != 1]}"
