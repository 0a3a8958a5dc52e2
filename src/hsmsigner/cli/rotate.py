"""`hsmsigner rotate`: one key, those that are due, or all of them in an emergency."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from hsmsigner.cli.options import (
    EtagOption,
    JsonOption,
    ProfileOption,
    YesOption,
    checked_reason,
    checked_request_id,
    confirmed,
    key_name,
    parsed_duration,
    parsed_time,
)
from hsmsigner.cli.output import ExitCode, print_fields, print_json, print_line, print_progress, print_table
from hsmsigner.cli.shown import enum_name, maybe_time_text, version_fields
from hsmsigner.client import OutcomeUnknown, SignerClient, SigningClientError

_DUE_REASON = "due by its rotation policy"


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What became of one key: its newest version, or why there is none."""

    key: str
    version: Any = None
    error: SigningClientError | None = None


def rotate(  # noqa: PLR0917 - typer reads options from the parameters
    profile: ProfileOption,
    key: Annotated[str | None, typer.Argument(help="keys/NAME, or NAME alone.", metavar="KEY")] = None,
    reason: Annotated[str | None, typer.Option(help="Why, for the record.", metavar="TEXT")] = None,
    activate_at: Annotated[
        str | None,
        typer.Option(
            help="When the next version takes over: 2026-12-01T06:00:00Z, or +12h; now unless told.", metavar="TIME"
        ),
    ] = None,
    overlap: Annotated[
        str | None,
        typer.Option(
            help="How long the old version may still be named; as the key's policy says unless told.",
            metavar="DURATION",
        ),
    ] = None,
    request_id: Annotated[
        str | None, typer.Option(help="UUID of this request; the same again rotates once.", metavar="UUID")
    ] = None,
    etag: EtagOption = "",
    *,
    is_due: Annotated[bool, typer.Option("--due", help="Rotate every key whose time has come.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say which ones, and rotate nothing.")] = False,
    is_all: Annotated[bool, typer.Option("--all", help="Rotate every key you see, now: for an emergency.")] = False,
    is_yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Make the next version of a key, publish it, and let it take over. Both versions vouch for each other.

    Example: hsmsigner rotate keys/settlement-eu --overlap 1h --reason "ticket 4711"

    Example: hsmsigner rotate --due --dry-run

    Example: hsmsigner rotate --all --reason "HSM firmware advisory"
    """  # fmt: skip
    if [key is not None, is_due, is_all].count(True) != 1:
        raise typer.BadParameter("say what to rotate: one KEY, --due or --all")
    if key is None and (request_id is not None or etag):
        raise typer.BadParameter("--request-id and --etag go with one KEY")
    if not is_due and reason is None:
        raise typer.BadParameter("must say why: it goes into the record", param_hint="--reason")
    options: dict[str, Any] = {
        "reason": checked_reason(_DUE_REASON if reason is None else reason),
        "activate_time": None if activate_at is None else parsed_time(activate_at, datetime.now(UTC), "--activate-at"),
        "overlap": None if overlap is None else parsed_duration(overlap, "--overlap"),
    }
    with SignerClient.from_profile(profile) as client:
        if key is not None:
            options |= {"request_id": checked_request_id(request_id), "etag": etag, "validate_only": dry_run}
            _rotate_one(client, key_name(key), options, as_json=as_json)
            return
        keys = [found for found in client.list_keys() if is_all or _is_due(found, datetime.now(UTC))]
        if dry_run or not keys:
            _show_plan(keys, is_due=is_due, as_json=as_json)
            return
        if is_all:
            names = ", ".join(found.name for found in keys[:5]) + (" ..." if len(keys) > 5 else "")  # noqa: PLR2004
            confirmed(f"Rotate {len(keys)} keys now ({names})?", is_yes=is_yes, as_json=as_json)
        outcomes = _rotate_each(client, [found.name for found in keys], options)
    _show_outcomes(outcomes, as_json=as_json)
    if any(outcome.error is not None for outcome in outcomes):
        is_unknown = all(isinstance(outcome.error, OutcomeUnknown | None) for outcome in outcomes)
        raise typer.Exit(ExitCode.UNREACHABLE if is_unknown else ExitCode.REFUSED)


def _rotate_one(client: SignerClient, name: str, options: dict[str, Any], *, as_json: bool) -> None:
    before = client.get_key(name)
    rotated = client.rotate_key(name, **options)
    if options["validate_only"]:
        if as_json:
            print_json({"name": name, "would_rotate": True})
        else:
            print_line(f"{name} would be rotated; its primary is {before.primary.name}")
        return
    versions = list(client.list_key_versions(name))
    if as_json:
        print_json({"primary": rotated.primary.name, "versions": [version_fields(version) for version in versions]})
        return
    newest, old = versions[-1], next(version for version in versions if version.name == before.primary.name)
    fields = {"made": newest.name, "state": enum_name(newest, "state")}
    if newest.name == rotated.primary.name:
        fields["signs"] = "now: it is the primary"
    else:
        fields["signs"] = f"from {maybe_time_text(newest, 'activate_time') or 'when it is activated'}"
    if old.name != newest.name and (until := maybe_time_text(old, "deactivate_time")):
        fields["before"] = f"{old.name} may still be named until {until}"
    print_fields(fields)


def _is_due(key: Any, now: datetime) -> bool:
    if key.HasField("next_rotation_time") and key.next_rotation_time.ToDatetime(UTC) <= now:
        return True
    limit = key.rotation_policy.max_signatures
    return bool(limit) and key.primary.signature_count >= limit


def _rotate_each(client: SignerClient, names: Sequence[str], options: dict[str, Any]) -> list[_Outcome]:
    """One after the other; what one key's rotation meets does not stop the next one's."""
    outcomes = []
    for done, name in enumerate(names):
        print_progress(f"rotated {done} of {len(names)}: {name}")
        try:
            rotated = client.rotate_key(name, **options)
        except SigningClientError as error:
            outcomes.append(_Outcome(name, error=error))
        else:
            outcomes.append(_Outcome(name, _newest(client, rotated)))
    print_progress("")
    return outcomes


def _newest(client: SignerClient, rotated: Any) -> Any:
    try:
        return list(client.list_key_versions(rotated.name))[-1]
    except SigningClientError:
        # It was rotated all the same; the primary is what the answer itself tells.
        return rotated.primary


def _show_plan(keys: Sequence[Any], *, is_due: bool, as_json: bool) -> None:
    rows = [(key.name, key.primary.name.rpartition("/")[2], maybe_time_text(key, "next_rotation_time")) for key in keys]
    if as_json:
        print_json([{"name": name, "primary": number, "next_rotation_time": time} for name, number, time in rows])
        return
    print_table(
        ("would rotate", "primary", "due"),
        [(name, number, time or ("by signatures" if is_due else "")) for name, number, time in rows],
        empty="no key is due" if is_due else "no keys, or none over which this profile has a right",
    )


def _show_outcomes(outcomes: Sequence[_Outcome], *, as_json: bool) -> None:
    if as_json:
        print_json([_outcome_fields(outcome) for outcome in outcomes])
        return
    print_table(
        ("key", "version", "outcome"),
        [
            (
                outcome.key,
                "" if outcome.version is None else outcome.version.name.rpartition("/")[2],
                enum_name(outcome.version, "state") if outcome.error is None else str(outcome.error),
            )
            for outcome in outcomes
        ],
        empty="nothing was rotated",
    )
    failed = sum(outcome.error is not None for outcome in outcomes)
    print_line(f"{len(outcomes) - failed} rotated" + (f", {failed} NOT" if failed else ""))


def _outcome_fields(outcome: _Outcome) -> dict[str, Any]:
    error = outcome.error
    return {
        "name": outcome.key,
        "version": None if outcome.version is None else version_fields(outcome.version),
        "error": None if error is None else {"reason": error.reason, "message": error.message},
    }
