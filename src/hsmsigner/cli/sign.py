"""`hsmsigner sign`: one signature."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Annotated

import typer

from hsmsigner.cli.options import (
    DEFAULT_TIMEOUT_S,
    JsonOption,
    OutOption,
    ProfileOption,
    TimeoutOption,
    checked_request_id,
    key_name,
    read_input,
    write_output,
)
from hsmsigner.cli.output import print_fields, print_json
from hsmsigner.client import Signature, SignerClient

_TEXT_FORMATS = {"JWS_COMPACT", "JWS_DETACHED"}
_FORMATS = ("RAW", "DER", "JWS_COMPACT", "JWS_DETACHED", "ETHEREUM")


def sign(  # noqa: PLR0917 - typer reads options from the parameters
    file: Annotated[Path, typer.Argument(help="What to sign, byte for byte; - is standard input.", metavar="FILE")],
    key: Annotated[str, typer.Option(help="keys/NAME, keys/NAME/versions/N, or without keys/.", metavar="KEY")],
    profile: ProfileOption,
    output_format: Annotated[
        str, typer.Option("--format", help=f"One of {', '.join(_FORMATS)}.", metavar="FORMAT")
    ] = "RAW",
    out: OutOption = None,
    request_id: Annotated[
        str | None, typer.Option(help="UUID of this request; the same again gives the same signature.", metavar="UUID")
    ] = None,
    label: Annotated[
        list[str] | None, typer.Option(help="NAME=VALUE for the record; repeatable.", metavar="NAME=VALUE")
    ] = None,
    timeout_s: TimeoutOption = DEFAULT_TIMEOUT_S,
    *,
    digest: Annotated[bool, typer.Option("--digest", help="FILE holds the raw digest, not the message.")] = False,
    validate_only: Annotated[
        bool, typer.Option("--validate-only", help="Ask whether it would be signed; sign and count nothing.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Sign one file with a key in the token.

    The signature is printed in base64 (JWS as the text it is); --out writes its bytes.

    Example: hsmsigner sign payment.xml --key keys/settlement-eu --format DER --out payment.sig
    """
    if output_format.upper() not in _FORMATS:
        raise typer.BadParameter(f"must be one of {', '.join(_FORMATS)}", param_hint="--format")
    content = read_input(file)
    request = checked_request_id(request_id)
    labels = _labels(label or [])
    with SignerClient.from_profile(profile) as client:
        signature = client.sign(
            key_name(key),
            None if digest else content,
            digest=content if digest else None,
            request_id=request,
            output_format=output_format.upper(),
            labels=labels,
            validate_only=validate_only,
            timeout_s=timeout_s,
            unary=True,
        )
    if out is not None and not validate_only:
        write_output(out, signature.signature)
    fields = _fields(signature, output_format.upper())
    if as_json:
        print_json(fields)
    elif validate_only:
        print_fields({"would be signed by": signature.name, "policy revision": str(signature.policy_revision)})
    else:
        shown = {name.replace("_", " "): str(value) for name, value in fields.items()}
        if out is not None:
            shown["signature"] = f"{len(signature.signature)} bytes in {out}"
        print_fields(shown)


def _fields(signature: Signature, output_format: str) -> dict[str, str | int]:
    content = signature.signature
    return {
        "name": signature.name,
        "algorithm": signature.algorithm,
        "protection_level": signature.protection_level,
        "origin": signature.origin,
        "request_id": signature.request_id,
        "audit_sequence": signature.audit_sequence,
        "policy_revision": signature.policy_revision,
        "authorize_time": signature.authorize_time.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "digest": signature.digest.hex(),
        "format": output_format,
        "signature": content.decode("ascii") if output_format in _TEXT_FORMATS else base64.b64encode(content).decode(),
    }


def _labels(texts: list[str]) -> dict[str, str]:
    labels: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name or name in labels:
            raise typer.BadParameter(f"{text!r} must be NAME=VALUE, each name once", param_hint="--label")
        labels[name] = value
    return labels
