"""`hsmsigner keys set-rotation` and `keys adopt`."""

from __future__ import annotations

from typing import Annotated

import typer

from hsmsigner.cli.key_versions import show_changed
from hsmsigner.cli.options import (
    EtagOption,
    JsonOption,
    KeyArgument,
    ProfileOption,
    ReasonOption,
    checked_reason,
    checked_request_id,
    key_name,
    parsed_duration,
)
from hsmsigner.cli.output import print_fields, print_json
from hsmsigner.cli.shown import key_fields, protection_text, rotation_text
from hsmsigner.client import RotationPolicy, SignerClient

_LONGEST_CKA_ID = 255


def add_commands(app: typer.Typer) -> None:
    """Add them to `keys`."""
    app.command("set-rotation")(set_rotation)
    app.command()(adopt)


def set_rotation(  # noqa: PLR0917 - typer reads options from the parameters
    key: KeyArgument,
    profile: ProfileOption,
    reason: ReasonOption,
    every: Annotated[str | None, typer.Option(help="By age, as in 90d.", metavar="DURATION")] = None,
    max_signatures: Annotated[int, typer.Option(help="By number of signatures; 0 for never.", min=0, metavar="N")] = 0,
    before_expiry: Annotated[
        str | None, typer.Option(help="This long before the certificate expires.", metavar="DURATION")
    ] = None,
    publish_lead: Annotated[
        str | None, typer.Option(help="Publish the next public key this long before it signs.", metavar="DURATION")
    ] = None,
    overlap: Annotated[
        str | None, typer.Option(help="The old version may still be named for this long.", metavar="DURATION")
    ] = None,
    destroy_after: Annotated[
        str | None, typer.Option(help="Destroy it this long after that; never unless told.", metavar="DURATION")
    ] = None,
    etag: EtagOption = "",
    *,
    never: Annotated[bool, typer.Option("--never", help="End automatic rotation.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Say when a key rotates by itself. Replaces the whole policy: what is not given is not asked for.

    Example: hsmsigner keys set-rotation settlement-eu --every 90d --publish-lead 7d --overlap 1d --reason "policy 12"
    """
    lengths = {
        "rotation_period": ("--every", every),
        "before_certificate_expiry": ("--before-expiry", before_expiry),
        "publish_lead": ("--publish-lead", publish_lead),
        "overlap": ("--overlap", overlap),
        "destroy_after": ("--destroy-after", destroy_after),
    }
    durations = {name: parsed_duration(text, option) for name, (option, text) in lengths.items() if text is not None}
    if never == bool(durations or max_signatures):
        raise typer.BadParameter("give --never, or when it is to rotate (--every, --max-signatures, --before-expiry)")
    why = checked_reason(reason)
    with SignerClient.from_profile(profile) as client:
        policy = RotationPolicy(max_signatures=max_signatures, **durations)
        changed = client.set_rotation_policy(key_name(key), policy, reason=why, etag=etag)
    if as_json:
        print_json(key_fields(changed))
    else:
        print_fields({"key": changed.name, "rotates": rotation_text(changed)})


def adopt(  # noqa: PLR0917 - typer reads options from the parameters
    key: KeyArgument,
    profile: ProfileOption,
    cka_id: Annotated[str, typer.Option(help="CKA_ID of the pair on the token, in hex.", metavar="HEX")],
    algorithm: Annotated[str, typer.Option(help="What it signs with, as in ECDSA_P256_SHA256.", metavar="ALGORITHM")],
    reason: ReasonOption,
    request_id: Annotated[
        str | None, typer.Option(help="UUID of this request; the same again adopts once.", metavar="UUID")
    ] = None,
    *,
    allow_unprotected: Annotated[
        bool, typer.Option("--allow-unprotected", help="Even if it may have been outside of the token.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Take a key pair that is on the token already, as made in a key ceremony. Every answer says that it was adopted.

    A new key's first version is ACTIVE; the next version of an existing key waits for `keys activate`.

    Example: hsmsigner keys adopt root-2026 --cka-id 7a01 --algorithm ECDSA_P384_SHA384 --reason "ceremony of 3 May"
    """
    try:
        wanted = bytes.fromhex(cka_id)
    except ValueError:
        wanted = b""
    if not 1 <= len(wanted) <= _LONGEST_CKA_ID:
        raise typer.BadParameter("must be 1-255 bytes in hex, as in 7a01", param_hint="--cka-id")
    why, request = checked_reason(reason), checked_request_id(request_id)
    with SignerClient.from_profile(profile) as client:
        adopted = client.adopt_key_version(
            key_name(key),
            algorithm.upper(),
            wanted,
            reason=why,
            allow_unprotected=allow_unprotected,
            request_id=request,
        )
    show_changed(adopted, as_json=as_json)
    if not as_json:
        print_fields({"private key": protection_text(adopted)})
