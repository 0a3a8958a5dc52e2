"""`hsmsigner backup` and `hsmsigner restore`."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from hsmsigner.backup import NOT_INCLUDED, Restored, restore_backup, take_backup
from hsmsigner.cli.options import ConfigOption, JsonOption, StateOption, config_path
from hsmsigner.cli.output import print_fields, print_json, print_line, print_progress


def backup(
    state: StateOption = None,
    config: ConfigOption = None,
    *,
    out: Annotated[
        Path,
        typer.Option(
            "--out", help="New folder; new FILE.tar; or a folder that is there, for a file in it.", metavar="FILE|DIR"
        ),
    ],
    as_json: JsonOption = False,
) -> None:
    """Copy store, settings and policy, consistent with each other, while the appliance runs or not.

    Keys, PINs and TLS files are not in it. The copy is opened and checked before this says that it is done.

    Example: hsmsigner backup --state ./appliance --out /backups/
    """
    where, manifest = take_backup(config_path(state, config), out, datetime.now(UTC), print_progress)
    _end_progress()
    if as_json:
        print_json({"backup": str(where), "size": manifest.size, "root": manifest.root, "time": manifest.time})
        return
    print_fields(
        {
            "backup": str(where),
            "log": f"{manifest.origin}: {manifest.size} records, root {manifest.root}",
            "checkpoint": f"newest of {manifest.checkpoint_size} records" if manifest.checkpoint_size else "none yet",
            "policy": f"revision {manifest.policy_revision}",
            "not in it": NOT_INCLUDED,
        }
    )


def restore(
    backup: Annotated[Path, typer.Argument(help="What `hsmsigner backup` wrote.", metavar="BACKUP", exists=True)],
    state: Annotated[Path, typer.Option("--state", help="State folder of the stopped appliance.", metavar="DIR")],
    *,
    is_forced: Annotated[
        bool, typer.Option("--force", help="Also where there is a store, which is kept aside as *.before-restore.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Put a backup's store in place; the appliance must be stopped. Says what the token will make of it.

    Settings and policy are written only where they are missing.

    Example: hsmsigner restore /backups/hsmsigner-20261120T060000Z.tar --state ./appliance --force
    """
    restored = restore_backup(backup, state, print_progress, is_forced=is_forced)
    _end_progress()
    if as_json:
        print_json(_as_json(restored))
        return
    fields = {
        "restored": f"{restored.database}: {restored.manifest.size} records, backup of {restored.manifest.time}",
        "kept aside": str(restored.set_aside or "nothing was there"),
    }
    if restored.written:
        fields["written"] = ", ".join(map(str, restored.written))
    if restored.differing:
        fields["left as they were"] = f"{', '.join(map(str, restored.differing))}: not as in the backup"
    print_fields(fields)
    print_line(f"\n{_what_follows(restored)}")


def _what_follows(restored: Restored) -> str:
    size = restored.manifest.size
    if restored.token_fault:
        return (
            f"The token could not be asked ({restored.token_fault}). If it remembers more than {size} records, the "
            "next start is refused: `hsmsigner doctor` then explains it."
        )
    if restored.contradiction is not None:
        return (
            f"The next start is refused: {restored.contradiction.what}. If there is no newer backup, start with "
            '`hsmsigner serve --accept-rollback "why"`. What it means: requests, signatures and changes of keys or '
            "policy that came after the backup are not in the log, though they happened; quotas have forgotten what "
            "those requests counted, so that within one period of each quota its limit may be exceeded; keys made "
            "since then are on the token but not in the store (`hsmsigner keys adopt`); and witnesses that saw more of "
            "the log will not cosign it again."
        )
    if restored.remembered_size is None:
        return "The token remembers nothing of this log: the next start is not refused, and records that."
    return (
        f"The token remembers {restored.remembered_size} records, which the backup has: the next start is not refused. "
        f"What came after record {size - 1} is lost all the same, and quotas have forgotten it."
    )


def _as_json(restored: Restored) -> dict[str, object]:
    return {
        "store": str(restored.database),
        "size": restored.manifest.size,
        "root": restored.manifest.root,
        "set_aside": str(restored.set_aside) if restored.set_aside else None,
        "written": [str(path) for path in restored.written],
        "differing": [str(path) for path in restored.differing],
        "remembered_size": restored.remembered_size,
        "token_fault": restored.token_fault,
        "start_is_refused": restored.contradiction is not None,
    }


def _end_progress() -> None:
    print_progress("")
    if sys.stderr.isatty():
        sys.stderr.write("\r")
