"""`hsmsigner keys jwks`: what a verifier needs, in one file."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from hsmsigner.cli.options import JsonOption, OutOption, ProfileOption, key_name, write_output
from hsmsigner.cli.output import print_json, print_line
from hsmsigner.client import SignerClient


def add_commands(app: typer.Typer) -> None:
    """Add them to `keys`."""
    app.command()(jwks)


def jwks(
    profile: ProfileOption,
    key: Annotated[str | None, typer.Option(help="Only this key's versions.", metavar="KEY")] = None,
    out: OutOption = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """Print the public keys you may see as a JWK Set: pending, active and old ones, each with its times.

    `nbf` and `exp` say from when and until when a signature is to be expected, `x5c` is the certificate, `state` and
    `origin` are as in `keys show`. Compromised versions are left out.

    Example: hsmsigner keys jwks --key settlement-eu --out jwks.json
    """
    prefix = "" if key is None else f"{key_name(key)}/versions/"
    found: list[dict[str, Any]] = []
    page_token = ""
    with SignerClient.from_profile(profile) as client:
        while True:
            page = client.public_key_page(page_token)
            found += [jwk for jwk in json.loads(page.jwks)["keys"] if jwk["kid"].startswith(prefix)]
            if not (page_token := page.next_page_token):
                break
    if out is not None:
        write_output(out, (json.dumps({"keys": found}, indent=2) + "\n").encode())
    if as_json or out is None:
        print_json({"keys": found})
    else:
        print_line(f"wrote {len(found)} public key{'s'[: len(found) != 1]} to {out}")
