"""`hsmsigner keys activate|suspend|...`: one command per change of a version's state."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from hsmsigner.cli.options import (
    EtagOption,
    JsonOption,
    OneVersionArgument,
    ProfileOption,
    ReasonOption,
    YesOption,
    checked_reason,
    confirmed,
    key_name,
    parsed_duration,
)
from hsmsigner.cli.output import print_fields, print_json
from hsmsigner.cli.shown import enum_name, maybe_time_text, version_fields
from hsmsigner.client import SignerClient

# Command, method of the client, what happens; one shape for all of them.
_VERBS = (
    ("activate", "activate_key_version", "Let a version that was published sign, and make it the primary."),
    ("suspend", "suspend_key_version", "Stop a version from signing until it is resumed."),
    ("resume", "resume_key_version", "Let a suspended version sign again."),
    ("deactivate", "deactivate_key_version", "End a version's signing for good; its signatures stay verifiable."),
    ("compromised", "mark_key_version_compromised", "Tell every verifier not to trust a version any more, for good."),
    ("restore", "restore_key_version", "Take back a scheduled destruction; the version is what it was before."),
)


def add_commands(app: typer.Typer) -> None:
    """Add them to `keys`."""
    for command, method, what in _VERBS:
        app.command(command)(_changing(command, method, what))
    app.command("schedule-destroy")(schedule_destroy)
    app.command()(destroy)


def _changing(command: str, method: str, what: str) -> Any:
    def change(
        version: OneVersionArgument,
        profile: ProfileOption,
        reason: ReasonOption,
        etag: EtagOption = "",
        *,
        as_json: JsonOption = False,
    ) -> None:
        why = checked_reason(reason)
        with SignerClient.from_profile(profile) as client:
            changed = getattr(client, method)(key_name(version), reason=why, etag=etag)
        show_changed(changed, as_json=as_json)

    change.__doc__ = (
        f'{what}\n\n    Example: hsmsigner keys {command} keys/settlement-eu/versions/2 --reason "ticket 4711"\n    '
    )
    return change


def schedule_destroy(
    version: OneVersionArgument,
    profile: ProfileOption,
    reason: ReasonOption,
    delay: Annotated[
        str, typer.Option(help="How long it can still be restored: 1m to 400d.", metavar="DURATION")
    ] = "30d",
    etag: EtagOption = "",
    *,
    as_json: JsonOption = False,
) -> None:
    """Have a version destroyed after a delay, in which it can be restored.

    Example: hsmsigner keys schedule-destroy keys/settlement-eu/versions/1 --delay 30d --reason "retention is over"
    """
    why, wait = checked_reason(reason), parsed_duration(delay, "--delay")
    with SignerClient.from_profile(profile) as client:
        changed = client.schedule_destroy_key_version(key_name(version), reason=why, delay=wait, etag=etag)
    show_changed(changed, as_json=as_json)


def destroy(
    version: OneVersionArgument,
    profile: ProfileOption,
    reason: ReasonOption,
    etag: EtagOption = "",
    *,
    is_yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Destroy a scheduled version's private key on the token now. This cannot be undone.

    Example: hsmsigner keys destroy keys/settlement-eu/versions/1 --reason "retention is over" --yes
    """
    why, name = checked_reason(reason), key_name(version)
    confirmed(f"Destroy the private key of {name} for good?", is_yes=is_yes, as_json=as_json)
    with SignerClient.from_profile(profile) as client:
        changed = client.destroy_key_version(name, reason=why, etag=etag)
    show_changed(changed, as_json=as_json)


def show_changed(version: Any, *, as_json: bool) -> None:
    """What became of a version."""
    if as_json:
        print_json(version_fields(version))
        return
    times = {
        "signs from": maybe_time_text(version, "activate_time"),
        "signs until": maybe_time_text(version, "deactivate_time"),
        "destroyed": maybe_time_text(version, "destroy_time"),
    }
    fields = {"version": version.name, "state": enum_name(version, "state")}
    print_fields(fields | {name: time for name, time in times.items() if time is not None})
