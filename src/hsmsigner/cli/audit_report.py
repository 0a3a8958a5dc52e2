"""`hsmsigner audit report`: what a period of the log adds up to, as a table or a page."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer

from hsmsigner.cli.audit_filters import KeyFilterOption, PrincipalOption, SinceOption, UntilOption, chosen, moment
from hsmsigner.cli.audit_records import parsed
from hsmsigner.cli.options import JsonOption, ProfileOption, write_output
from hsmsigner.cli.output import print_fields, print_json, print_line, print_progress, print_table
from hsmsigner.cli.report_data import OUTCOMES, Report
from hsmsigner.cli.report_page import page
from hsmsigner.client import SignerClient

_PAGE_SIZE = 1000


def report(
    profile: ProfileOption,
    *,
    since: SinceOption = "24h",
    until: UntilOption = "",
    key: KeyFilterOption = "",
    principal: PrincipalOption = "",
    html: Annotated[
        Path | None, typer.Option(help="Write a page with plots to this file.", metavar="FILE", dir_okay=False)
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Add up a period: signatures and refusals per key and principal, refusals by reason, how close to the limits.

    The last 24 hours unless told otherwise. It counts what the log says; `audit verify` says whether the log is whole.

    Example: hsmsigner audit report --since 2026-11-01T00:00:00Z --html november.html
    """
    begin, end = moment(since, "--since"), moment(until, "--until") or datetime.now(UTC)
    if begin is None:
        raise typer.BadParameter("must be a time, or how long ago, as in 24h", param_hint="--since")
    if begin >= end:
        raise typer.BadParameter("must be before --until", param_hint="--since")
    found = Report(begin.astimezone(UTC), end.astimezone(UTC))
    with SignerClient.from_profile(profile) as client:
        status = client.get_log_status()
        records = client.list_audit_records(
            status.first_sequence,
            _PAGE_SIZE,
            chosen(key=key, principal=principal, types=("sign.",), since=since, until=until),
        )
        # What is written while we read belongs to the next report.
        for number, record in enumerate(islice(records, status.tree_head.size), start=1):
            found.add(parsed(record.sequence, record.record))
            if number % _PAGE_SIZE == 0:
                print_progress(f"read {number} records")
    print_progress("")
    if html is not None:
        checkpoint = status.newest_checkpoint
        write_output(html, page(found, status.origin, f"newest checkpoint: {checkpoint.size:,} records").encode())
    if as_json:
        print_json(_as_json(found))
        return
    _print(found)
    if html is not None:
        print_line(f"\nwrote {html}")


def _print(found: Report) -> None:
    print_fields(
        {
            "period": f"{found.begin:%Y-%m-%d %H:%M} to {found.end:%Y-%m-%d %H:%M} UTC",
            "totals": ", ".join(f"{found.total(outcome)} {outcome}" for outcome in OUTCOMES),
        }
    )
    print_line("")
    print_table(
        ("key", "principal", *OUTCOMES),
        [
            (key, principal, *(str(counts[outcome]) for outcome in OUTCOMES))
            for (key, principal), counts in sorted(found.counts.items())
        ],
        empty="nobody asked for a signature",
    )
    if found.reasons:
        print_line("")
        print_table(("refused because", "times"), [(why, str(n)) for why, n in found.reasons.most_common()], empty="")
    if found.peaks:
        print_line("")
        peaks = sorted(found.peaks.items(), key=lambda item: -item[1].share)
        print_table(
            ("key", "quota", "most used", "at"),
            [(key, quota, f"{peak.observed} of {peak.limit}", peak.time[:19]) for (key, quota), peak in peaks],
            empty="",
        )


def _as_json(found: Report) -> dict[str, Any]:
    return {
        "begin": found.begin.isoformat(),
        "end": found.end.isoformat(),
        "records": found.records,
        "totals": {outcome: found.total(outcome) for outcome in OUTCOMES},
        "by_key_and_principal": [
            {"key": key, "principal": principal} | {outcome: counts[outcome] for outcome in OUTCOMES}
            for (key, principal), counts in sorted(found.counts.items())
        ],
        "refusals": dict(found.reasons.most_common()),
        "peaks": [
            {"key": key, "quota": quota, "observed": peak.observed, "limit": peak.limit, "time": peak.time}
            for (key, quota), peak in sorted(found.peaks.items())
        ],
    }
