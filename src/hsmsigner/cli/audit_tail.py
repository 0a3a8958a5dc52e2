"""`hsmsigner audit tail`: new records as soon as they are durable."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from hsmsigner.cli.audit_filters import KeyFilterOption, OutcomeOption, PrincipalOption, TypeOption, chosen
from hsmsigner.cli.audit_records import parsed, summary
from hsmsigner.cli.options import JsonOption, ProfileOption
from hsmsigner.cli.output import print_line
from hsmsigner.client import NEW_RECORDS, SignerClient


def tail(
    profile: ProfileOption,
    *,
    start: Annotated[int | None, typer.Option(help="Begin with this record.", min=0, metavar="N")] = None,
    key: KeyFilterOption = "",
    principal: PrincipalOption = "",
    types: TypeOption = [],  # noqa: B006 - typer reads it, nobody writes it
    outcome: OutcomeOption = "",
    as_json: JsonOption = False,
) -> None:
    """Show new records as they are written, until Ctrl-C. --json prints each as it is stored, one per line.

    Goes on by itself when the connection breaks: no record is left out.

    Example: hsmsigner audit tail --outcome denied
    """
    wanted = chosen(key=key, principal=principal, types=types, outcome=outcome)
    with SignerClient.from_profile(profile) as client:
        try:
            for answer in client.watch_audit_records(NEW_RECORDS if start is None else start, wanted):
                for record in answer.records:
                    if as_json:
                        sys.stdout.write(record.record.decode(errors="replace") + "\n")
                        continue
                    fields = parsed(record.sequence, record.record)
                    print_line(
                        f"{record.sequence:>8}  {str(fields.get('time'))[:19]}  {fields.get('type')!s:<20}"
                        f"  {summary(fields)}"
                    )
                sys.stdout.flush()
        except KeyboardInterrupt:
            return
