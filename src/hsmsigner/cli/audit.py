"""`hsmsigner audit`: read the log, and check that nobody has touched it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import islice
from typing import Annotated

import typer

from hsmsigner.cli.options import JsonOption, ProfileOption
from hsmsigner.cli.output import print_fields, print_json, print_progress, print_table
from hsmsigner.client import SignerClient
from hsmsigner.verifier import VerificationError, verify_records

_PAGE_SIZE = 1000
_ALWAYS_THERE = ("sequence", "time", "type", "previous_hash")
_SHOWN_FIRST = ("principal", "key", "reason", "rule")


def build_app() -> typer.Typer:
    """Put the group together."""
    app = typer.Typer(no_args_is_help=True, help="The log: read it, and verify that it is whole.")
    app.command("list")(list_records)
    app.command()(verify)
    return app


def list_records(
    profile: ProfileOption,
    start: Annotated[int, typer.Option(help="First record; negative counts from the end.", metavar="N")] = -20,
    limit: Annotated[int, typer.Option(help="At most this many.", min=1, max=1_000_000, metavar="N")] = 100,
    *,
    as_json: JsonOption = False,
) -> None:
    """List records of the log, the last 20 unless told otherwise. --json prints them whole.

    Example: hsmsigner audit list --start 0 --limit 50 --json
    """
    with SignerClient.from_profile(profile) as client:
        if start < 0:
            start = max(0, client.audit_page(0, 1).tree_head.size + start)
        records = [record.record for record in islice(client.list_audit_records(start, min(limit, _PAGE_SIZE)), limit)]
    parsed = [_parsed(start + index, record) for index, record in enumerate(records)]
    if as_json:
        print_json(parsed)
        return
    print_table(
        ("record", "time", "type", "what"),
        [
            (str(fields["sequence"]), str(fields.get("time"))[:19], str(fields.get("type")), _summary(fields))
            for fields in parsed
        ],
        empty="the log has no such records",
    )


def verify(profile: ProfileOption, *, as_json: JsonOption = False) -> None:
    """Read the whole log and check every link of it, and its Merkle root. Exit code 5 when something is wrong.

    Records that are added meanwhile are left to the next run. Nothing of the server's own code is used to check.

    Example: hsmsigner audit verify
    """
    with SignerClient.from_profile(profile) as client:
        head = client.audit_page(0, 1).tree_head
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


def _parsed(sequence: int, record: bytes) -> dict[str, object]:
    try:
        fields = json.loads(record)
    except ValueError as error:
        message = f"record {sequence} cannot be read as JSON: `hsmsigner audit verify` tells more"
        raise VerificationError("unparsable", sequence, message) from error
    if not isinstance(fields, dict):
        raise VerificationError("unparsable", sequence, f"record {sequence} is not a JSON object")
    return {"sequence": sequence, **fields}


def _summary(fields: dict[str, object]) -> str:
    """What a record says besides number, time and type; the values that matter first, long ones cut."""
    names = [name for name in _SHOWN_FIRST if name in fields]
    names += [name for name in fields if name not in (*_SHOWN_FIRST, *_ALWAYS_THERE)]
    shown = []
    for name in names[:5]:
        value = fields[name]
        text = value if isinstance(value, str) else json.dumps(value)
        shown.append(f"{name}={text[:48]}{'…' if len(text) > 48 else ''}")  # noqa: PLR2004 - as many as fit
    return " ".join(shown)
