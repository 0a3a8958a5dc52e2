"""`hsmsigner keys csr` and `keys attach-certificate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hsmsigner.cli.options import (
    EtagOption,
    JsonOption,
    OneVersionArgument,
    OutOption,
    ProfileOption,
    ReasonOption,
    VersionArgument,
    checked_reason,
    key_name,
    parsed_duration,
    read_input,
    write_output,
)
from hsmsigner.cli.output import print_json, print_line
from hsmsigner.cli.shown import version_fields
from hsmsigner.client import SignerClient

_Several = list[str] | None


def add_commands(app: typer.Typer) -> None:
    """Add them to `keys`."""
    app.command()(csr)
    app.command("attach-certificate")(attach_certificate)


def csr(  # noqa: PLR0917 - typer reads options from the parameters
    key: VersionArgument,
    profile: ProfileOption,
    subject: Annotated[str, typer.Option(help="As in CN=settlement-eu,O=Bank,C=DE (RFC 4514).", metavar="NAME")],
    dns: Annotated[_Several, typer.Option(help="Alternative DNS name; repeatable.", metavar="NAME")] = None,
    uri: Annotated[_Several, typer.Option(help="Alternative URI; repeatable.", metavar="URI")] = None,
    ip: Annotated[_Several, typer.Option(help="Alternative address; repeatable.", metavar="ADDRESS")] = None,
    email: Annotated[_Several, typer.Option(help="Alternative e-mail address; repeatable.", metavar="ADDRESS")] = None,
    usage: Annotated[
        _Several,
        typer.Option(
            help="digital_signature (unless told), content_commitment, key_cert_sign, crl_sign; repeatable.",
            metavar="USAGE",
        ),
    ] = None,
    extended_usage: Annotated[_Several, typer.Option(help="OID; repeatable.", metavar="OID")] = None,
    self_signed: Annotated[
        str | None,
        typer.Option(help="For development: a certificate by itself instead, good for this long.", metavar="DURATION"),
    ] = None,
    out: OutOption = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """Have a key sign a request for a certificate (PKCS#10), for your CA.

    Example: hsmsigner keys csr settlement-eu --subject CN=settlement-eu,O=Bank --out settlement-eu.csr

    Example: hsmsigner keys csr settlement-eu --subject CN=settlement-eu --self-signed 30d --out settlement-eu.pem
    """
    lifetime = None if self_signed is None else parsed_duration(self_signed, "--self-signed")
    with SignerClient.from_profile(profile) as client:
        made = client.create_certificate_signing_request(
            key_name(key),
            subject,
            dns_names=dns or (),
            uris=uri or (),
            ip_addresses=ip or (),
            email_addresses=email or (),
            key_usages=usage or (),
            extended_key_usages=extended_usage or (),
            self_signed_lifetime=lifetime,
        )
    pem = made.pem or made.certificate
    if out is not None:
        write_output(out, pem.encode())
    if as_json:
        print_json({"name": made.name, "pem": pem})
    elif out is not None:
        print_line(f"wrote the {'request' if made.pem else 'certificate'} of {made.name} to {out}")
    else:
        print_line(pem.rstrip("\n"))


def attach_certificate(
    version: OneVersionArgument,
    file: Annotated[Path, typer.Argument(help="PEM, leaf first, then its issuers; - is standard input.")],
    profile: ProfileOption,
    reason: ReasonOption,
    etag: EtagOption = "",
    *,
    as_json: JsonOption = False,
) -> None:
    """Attach a certificate to the version whose public key it certifies; it is served with the public key.

    Example: hsmsigner keys attach-certificate settlement-eu/versions/2 chain.pem --reason "issued by our CA"
    """
    why, content = checked_reason(reason), read_input(file)
    try:
        chain = content.decode("ascii")
    except UnicodeDecodeError as error:
        raise typer.BadParameter(f"{file} is not PEM; `openssl x509 -inform DER` makes PEM of DER") from error
    with SignerClient.from_profile(profile) as client:
        changed = client.attach_certificate(key_name(version), chain, reason=why, etag=etag)
    if as_json:
        print_json(version_fields(changed))
    else:
        number = changed.certificate_chain.count("-----BEGIN CERTIFICATE-----")
        print_line(f"attached {number} certificate{'s'[: number != 1]} to {changed.name}")
