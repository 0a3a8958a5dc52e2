"""`hsmsigner keys`: make keys and look at them."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from hsmsigner.cli import key_certificates, key_continuity, key_history, key_sets, key_settings, key_versions
from hsmsigner.cli.options import (
    JsonOption,
    KeyArgument,
    OutOption,
    ProfileOption,
    VersionArgument,
    checked_request_id,
    key_name,
    write_output,
)
from hsmsigner.cli.output import print_fields, print_json, print_line, print_table
from hsmsigner.cli.shown import (
    enum_name,
    key_fields,
    life_text,
    protection_text,
    rotation_text,
    time_text,
    version_fields,
)
from hsmsigner.client import SignerClient

_ENCODINGS = ("pem", "der", "jwk")


def build_app() -> typer.Typer:
    """Put the group together."""
    app = typer.Typer(no_args_is_help=True, help="Keys in the token, and their lives.")
    app.command()(create)
    app.command("list")(list_keys)
    app.command()(show)
    app.command("public-key")(public_key)
    for group in (key_sets, key_history, key_settings, key_versions, key_certificates, key_continuity):
        group.add_commands(app)
    return app


def create(
    key: KeyArgument,
    profile: ProfileOption,
    algorithm: Annotated[
        str, typer.Option(help="One algorithm fixes curve or size, hash and padding.", metavar="ALGORITHM")
    ] = "ECDSA_P256_SHA256",
    request_id: Annotated[
        str | None, typer.Option(help="UUID of this request; the same again makes no second key.", metavar="UUID")
    ] = None,
    *,
    validate_only: Annotated[bool, typer.Option("--validate-only", help="Ask whether it would be made.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Generate a key pair in the token. The private half never leaves it.

    Example: hsmsigner keys create settlement-eu --algorithm ECDSA_P256_SHA256
    """
    request = checked_request_id(request_id)
    with SignerClient.from_profile(profile) as client:
        made = client.create_key(
            key.removeprefix("keys/"), algorithm.upper(), request_id=request, validate_only=validate_only
        )
    if as_json:
        print_json(key_fields(made))
    elif validate_only:
        print_line(f"{key_name(key)} with {algorithm.upper()} would be made")
    else:
        primary = made.primary
        print_fields(
            {
                "made": primary.name,
                "algorithm": enum_name(primary, "algorithm"),
                "private key": f"{protection_text(primary)} ({enum_name(primary, 'protection_level')})",
            }
        )


def list_keys(profile: ProfileOption, *, as_json: JsonOption = False) -> None:
    """List the keys over which you have any right.

    Example: hsmsigner keys list --json
    """
    with SignerClient.from_profile(profile) as client:
        keys = list(client.list_keys())
    if as_json:
        print_json([key_fields(key) for key in keys])
        return
    print_table(
        ("key", "algorithm", "primary", "state", "made"),
        [
            (
                key.name,
                enum_name(key, "algorithm"),
                key.primary.name.rpartition("/")[2],
                enum_name(key.primary, "state"),
                time_text(key.create_time),
            )
            for key in keys
        ],
        empty="no keys, or none over which this profile has a right",
    )


def show(key: KeyArgument, profile: ProfileOption, *, as_json: JsonOption = False) -> None:
    """Show one key with its versions.

    Example: hsmsigner keys show keys/settlement-eu
    """
    name = key_name(key)
    with SignerClient.from_profile(profile) as client:
        found = client.get_key(name)
        versions = list(client.list_key_versions(name))
    if as_json:
        print_json({**key_fields(found), "versions": [version_fields(version) for version in versions]})
        return
    print_fields(
        {
            "key": found.name,
            "algorithm": enum_name(found, "algorithm"),
            "made": time_text(found.create_time),
            "primary": found.primary.name,
            "rotates": rotation_text(found),
        }
    )
    for version in versions:
        print_line("")
        print_fields(
            {
                "version": version.name,
                "state": enum_name(version, "state"),
                "made": time_text(version.create_time),
                "signs": life_text(version),
                "signatures": str(version.signature_count),
                "certificate": "attached" if version.certificate_chain else "none",
                "private key": f"{protection_text(version)} ({enum_name(version, 'protection_level')})",
                "CKA_ID": version.cka_id.hex(),
            }
        )


def public_key(
    key: VersionArgument,
    profile: ProfileOption,
    encoding: Annotated[str, typer.Option("--format", help="pem, der (needs --out) or jwk.", metavar="FORMAT")] = "pem",
    out: OutOption = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """Print a public key: of the primary version, or of the one named.

    Example: hsmsigner keys public-key keys/settlement-eu --out settlement-eu.pem
    """
    if encoding.lower() not in _ENCODINGS:
        raise typer.BadParameter(f"must be one of {', '.join(_ENCODINGS)}", param_hint="--format")
    if encoding.lower() == "der" and out is None and not as_json:
        raise typer.BadParameter("DER is binary: say where to write it with --out FILE", param_hint="--format")
    with SignerClient.from_profile(profile) as client:
        found = client.get_public_key(key_name(key))
    if encoding.lower() == "jwk" and not found.jwk:
        raise typer.BadParameter(
            f"{enum_name(found, 'algorithm')} has no name in JOSE; take pem", param_hint="--format"
        )
    content = {"pem": found.pem.encode(), "der": found.der, "jwk": found.jwk.encode()}[encoding.lower()]
    if out is not None:
        write_output(out, content)
    if as_json:
        print_json(
            {
                "name": found.name,
                "algorithm": enum_name(found, "algorithm"),
                "state": enum_name(found, "state"),
                "pem": found.pem,
                "jwk": json.loads(found.jwk) if found.jwk else None,
            }
        )
    elif out is not None:
        print_line(f"wrote the public key of {found.name} to {out}")
    else:
        print_line(content.decode().rstrip("\n"))
