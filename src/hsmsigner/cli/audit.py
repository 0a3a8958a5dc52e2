"""`hsmsigner audit`: read the log, and check that nobody has touched it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import islice
from typing import Annotated

import typer

from hsmsigner.cli.audit_export import export, seal
from hsmsigner.cli.audit_filters import (
    KeyFilterOption,
    OutcomeOption,
    PrincipalOption,
    SinceOption,
    TypeOption,
    UntilOption,
    chosen,
)
from hsmsigner.cli.audit_proofs import checkpoint, consistency, receipt, status
from hsmsigner.cli.audit_records import parsed, summary
from hsmsigner.cli.audit_report import report
from hsmsigner.cli.audit_tail import tail
from hsmsigner.cli.options import JsonOption, ProfileOption
from hsmsigner.cli.output import print_fields, print_json, print_progress, print_table
from hsmsigner.client import SignerClient
from hsmsigner.errors import ConfigurationError
from hsmsigner.verifier import verify_records

_PAGE_SIZE = 1000
_SHOWN = 20


def build_app() -> typer.Typer:
    """Put the group together."""
    app = typer.Typer(no_args_is_help=True, help="The log: read it, and verify that it is whole.")
    app.command("list")(list_records)
    app.command()(tail)
    app.command()(report)
    app.command()(status)
    app.command()(checkpoint)
    app.command()(receipt)
    app.command()(consistency)
    app.command()(export)
    app.command()(seal)
    app.command()(verify)
    return app


def list_records(
    profile: ProfileOption,
    *,
    start: Annotated[
        int | None,
        typer.Option(help="First record; negative counts from the end.", metavar="N", max=2**62, min=-(2**62)),
    ] = None,
    limit: Annotated[int, typer.Option(help="At most this many.", min=1, max=1_000_000, metavar="N")] = 100,
    key: KeyFilterOption = "",
    principal: PrincipalOption = "",
    types: TypeOption = [],  # noqa: B006 - typer reads it, nobody writes it
    outcome: OutcomeOption = "",
    since: SinceOption = "",
    until: UntilOption = "",
    as_json: JsonOption = False,
) -> None:
    """List records of the log, the last 20 unless told otherwise; with a filter, from the oldest that is here on.

    --json prints them whole.

    Example: hsmsigner audit list --key settlement-eu --outcome denied --since 24h
    """
    wanted = chosen(key=key, principal=principal, types=types, outcome=outcome, since=since, until=until)
    with SignerClient.from_profile(profile) as client:
        if start is None or start < 0:
            status = client.get_log_status()
            from_end = status.tree_head.size + (-_SHOWN if start is None else start)
            is_from_oldest = start is None and wanted is not None
            start = status.first_sequence if is_from_oldest else max(status.first_sequence, from_end)
        records = list(islice(client.list_audit_records(start, min(limit, _PAGE_SIZE), wanted), limit))
    found = [parsed(record.sequence, record.record) for record in records]
    if as_json:
        print_json(found)
        return
    print_table(
        ("record", "time", "type", "what"),
        [
            (str(fields["sequence"]), str(fields.get("time"))[:19], str(fields.get("type")), summary(fields))
            for fields in found
        ],
        empty="the log has no such records",
    )


def verify(profile: ProfileOption, *, as_json: JsonOption = False) -> None:
    """Read the whole log and check every link of it, and its Merkle root. Exit code 5 when something is wrong.

    Records that are added meanwhile are left to the next run. Nothing of the server's own code is used to check. A log
    of which records were sealed is checked with `audit export` and `hsmsigner-verify export DIR --archive ARCHIVE`.

    Example: hsmsigner audit verify
    """
    with SignerClient.from_profile(profile) as client:
        status = client.get_log_status()
        if status.first_sequence:
            raise ConfigurationError(
                f"records below {status.first_sequence} were sealed into an archive: `hsmsigner audit export DIR`,"
                " then `hsmsigner-verify export DIR --archive ARCHIVE`"
            )
        head = status.tree_head
        try:
            verify_records(_pages(client, head.size), head.size, head.root_hash)
        finally:
            print_progress("")
    if as_json:
        print_json({"records": head.size, "root_hash": head.root_hash.hex(), "fault": None})
        return
    print_fields(
        {
            "verified": f"{head.size} records: no gap, every link holds, time never runs backwards",
            "root": head.root_hash.hex(),
            "at": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        }
    )


def _pages(client: SignerClient, size: int) -> Iterator[tuple[int, bytes]]:
    records = client.list_audit_records(0, _PAGE_SIZE)
    for done, record in enumerate(islice(records, size), start=1):
        yield record.sequence, record.record
        if done % _PAGE_SIZE == 0:
            print_progress(f"verified {done} of {size} records")
