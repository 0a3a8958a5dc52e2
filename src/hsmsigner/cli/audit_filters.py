"""Options that choose records of the log, shared by `audit list`, `tail` and `report`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import typer

from hsmsigner.cli.options import key_name, parsed_duration, parsed_time
from hsmsigner.client import OUTCOMES, audit_filter

KeyFilterOption = Annotated[str, typer.Option("--key", help="Of this key, or version.", metavar="KEY")]
PrincipalOption = Annotated[str, typer.Option("--principal", help="Of this principal.", metavar="PRINCIPAL")]
TypeOption = Annotated[
    list[str], typer.Option("--type", help="Of this type, as sign.denied; `sign.` is all that begin so. Repeatable.")
]
OutcomeOption = Annotated[
    str, typer.Option("--outcome", help=f"With this outcome: {', '.join(OUTCOMES).lower()}.", metavar="OUTCOME")
]
SinceOption = Annotated[
    str, typer.Option("--since", help="Not before: 2026-11-01T00:00:00Z, or 24h for so long ago.", metavar="TIME")
]
UntilOption = Annotated[str, typer.Option("--until", help="Before: the same.", metavar="TIME")]


def chosen(
    *,
    key: str = "",
    principal: str = "",
    types: Sequence[str] = (),
    outcome: str = "",
    since: str = "",
    until: str = "",
) -> Any:
    """What the options say, for the client; None when they say nothing.

    Raises:
        typer.BadParameter: a value that means nothing.
    """
    if not any((key, principal, types, outcome, since, until)):
        return None
    if outcome and outcome.upper() not in OUTCOMES:
        raise typer.BadParameter(f"must be one of {', '.join(OUTCOMES).lower()}", param_hint="--outcome")
    return audit_filter(
        key=key_name(key) if key else "",
        principal=principal,
        types=types,
        outcome=outcome.upper(),
        start_time=moment(since, "--since"),
        end_time=moment(until, "--until"),
    )


def moment(text: str, option: str) -> datetime | None:
    """A time with its zone, or how long ago (`24h`); None for nothing.

    Raises:
        typer.BadParameter: anything else.
    """
    if not text:
        return None
    now = datetime.now(UTC)
    if text[0].isdigit() and text[-1] in "smhd":
        ago = parsed_duration(text, option)
        return now - min(ago, timedelta(days=36_500))
    return parsed_time(text, now, option)
