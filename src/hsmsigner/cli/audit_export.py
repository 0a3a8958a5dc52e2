"""`hsmsigner audit export` and `audit seal`: the whole log in a folder, and out of the store once it is there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from hsmsigner.cli.export_folder import SEGMENT, TILES_OF_SEGMENT, ExportFolder
from hsmsigner.cli.options import JsonOption, ProfileOption, YesOption, confirmed
from hsmsigner.cli.output import print_fields, print_json
from hsmsigner.client import SignerClient
from hsmsigner.errors import ConfigurationError
from hsmsigner.transparency.merkle import split_hashes
from hsmsigner.verifier import VerificationError
from hsmsigner.verifier.merkle import proves_consistency

_PAGE_SIZE = 1000
_LOG_KEY = "keys/audit-log"

FolderArgument = Annotated[Path, typer.Argument(help="Folder of the export.", metavar="DIR", file_okay=False)]


def export(folder: FolderArgument, profile: ProfileOption, *, as_json: JsonOption = False) -> None:
    """Write the log into a folder: records, tiles, checkpoints, up to the newest checkpoint. Read-only for the server.

    A folder that has an earlier export, or one that was broken off, is continued. `hsmsigner-verify export DIR` checks
    it, anywhere, without the appliance. The format is docs/log-format.md.

    Example: hsmsigner audit export ./log-2026 && hsmsigner-verify export ./log-2026 --log-key "$VKEY"
    """
    with SignerClient.from_profile(profile) as client:
        checkpoint = client.get_checkpoint()
        status = client.get_log_status()
        target = _opened(folder, status.origin)
        newest = checkpoint.checkpoint
        _require_growth(client, target, newest.size, newest.root_hash)
        # Before the long work: it needs another right than reading the log does.
        log_key = _log_key(client, list(checkpoint.vkeys))
        first = status.first_sequence if target.first is None else target.first
        kept = _write_records(client, target, first, status.first_sequence, newest.size)
        root = target.write_upper_tiles(newest.size)
        if root != newest.root_hash:
            raise VerificationError(
                "root",
                None,
                f"the records in {folder} do not add up to the checkpoint of size {newest.size}: the log or"
                " the folder was changed; export into an empty one to see which",
            )
        target.write_checkpoints(
            (one.size, {"time": one.create_time.ToDatetime().strftime("%Y-%m-%dT%H:%M:%S.%fZ"), "note": one.note})
            for one in client.list_checkpoints()
            if one.size <= newest.size
        )
        target.finish(status.origin, first, newest.size, newest.note, log_key)
    result = {"folder": str(folder), "first": first, "size": newest.size, "root_hash": root.hex(), "kept": kept}
    if as_json:
        print_json(result | {"vkeys": list(checkpoint.vkeys)})
        return
    print_fields(
        {
            "exported": f"records {first} to {newest.size - 1}, {kept} of them were there already",
            "root": root.hex(),
            "check with": f"hsmsigner-verify export {folder} --log-key '{checkpoint.vkeys[0]}'",
        }
    )


def seal(
    folder: FolderArgument,
    profile: ProfileOption,
    keep: Annotated[int, typer.Option(help="Leave at least so many of the newest records.", min=0)] = 1_000_000,
    *,
    is_yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Take records that an export has out of the store, in whole segments of 65,536. No proof breaks: hashes stay.

    That the folder has every one of them is checked first.

    Verify the export first (`hsmsigner-verify export DIR`) and keep it: the appliance no longer has these records.

    Example: hsmsigner audit export ./archive && hsmsigner audit seal ./archive --keep 1000000
    """
    target = ExportFolder(folder)
    if target.first is None:
        raise ConfigurationError(f"{folder} has no finished export; make it with `hsmsigner audit export {folder}`")
    end = max(0, target.size - keep) // SEGMENT * SEGMENT
    with SignerClient.from_profile(profile) as client:
        begin = client.get_log_status().first_sequence
        if end <= begin:
            print_json({"sealed": 0, "first_sequence": begin}) if as_json else print_fields(
                {"nothing to do": f"records below {begin} are sealed, and fewer than {SEGMENT} can be added to them"}
            )
            return
        confirmed(f"Take records {begin} to {end - 1} out of the store? Only {folder} will have them.", is_yes=is_yes,
                  as_json=as_json)  # fmt: skip
        root = target.root_at(end)
        for number in range(begin // SEGMENT, end // SEGMENT):
            # What the folder lacks would be lost for good.
            target.require_records(number)
        first = client.seal_audit_records(end, root, str(folder.resolve())[:1000]).first_sequence
    if as_json:
        print_json({"sealed": first - begin, "first_sequence": first})
    else:
        print_fields({"sealed": f"records {begin} to {first - 1}; the store begins with record {first}"})


def _opened(folder: Path, origin: str) -> ExportFolder:
    folder.mkdir(parents=True, exist_ok=True)
    target = ExportFolder(folder)
    if target.origin is not None and target.origin != origin:
        raise ConfigurationError(f"{folder} has an export of {target.origin!r}, and this log is {origin!r}")
    if target.origin is None and any(folder.iterdir()) and not (folder / "records").is_dir():
        raise ConfigurationError(f"{folder} has files that are no export in it; take an empty folder")
    return target


def _require_growth(client: SignerClient, target: ExportFolder, size: int, root_hash: bytes) -> None:
    """See that the log still begins with what is in the folder: else that is evidence, and not to be overwritten.

    Raises:
        VerificationError: `rollback` or `fork`; nothing was written.
    """
    before = target.newest()
    if before is None:
        return
    if before.size > size:
        raise VerificationError(
            "rollback", size, f"{target.path} has {before.size} records, and the newest checkpoint {size}: the log was"
            " set back. The folder was left as it is"
        )  # fmt: skip
    proof = client.get_consistency_proof(before.size, size).hashes
    if not proves_consistency((before.size, before.root_hash), (size, root_hash), proof):
        raise VerificationError(
            "fork", None, f"the log does not begin with the {before.size} records in {target.path}: they are of another"
            " log, or one of the two was changed. The folder was left as it is"
        )  # fmt: skip


def _write_records(client: SignerClient, target: ExportFolder, first: int, available: int, size: int) -> int:
    """Write what is missing from `first` on; returns how many records were there already."""
    kept = 0
    for tile in range(first // SEGMENT * TILES_OF_SEGMENT):
        if not target.has_tile(0, tile):
            # Sealed before this folder was begun: of these records only hashes are left.
            target.write_tile(0, tile, split_hashes(client.get_tree_tile(0, tile).hashes))
    with _progress() as progress:
        task = progress.add_task("records", total=size - first)
        for number in range(first // SEGMENT, -(-size // SEGMENT)):
            begin, end = number * SEGMENT, min((number + 1) * SEGMENT, size)
            if end == begin + SEGMENT and target.has_segment(number):
                kept += SEGMENT
            elif begin < available:
                raise ConfigurationError(
                    f"{target.path} lacks records {begin} to {end - 1}, which were sealed; continue the export that has"
                    " them, or begin a new one in an empty folder"
                )
            else:
                target.write_segment(number, _records(client, begin, end, lambda n: progress.advance(task, n)))
            progress.update(task, completed=end - first)
    return kept


def _records(client: SignerClient, begin: int, end: int, advance: Any) -> Iterator[tuple[int, bytes]]:
    records = iter(client.list_audit_records(begin, _PAGE_SIZE))
    for done in range(1, end - begin + 1):
        record = next(records, None)
        if record is None:
            raise VerificationError("truncated", begin + done - 1, f"the server has no record {begin + done - 1}")
        yield record.sequence, record.record
        if done % _PAGE_SIZE == 0:
            advance(_PAGE_SIZE)


def _log_key(client: SignerClient, vkeys: list[str]) -> dict[str, Any]:
    statements = [
        {
            "old_version": one.old_version,
            "new_version": one.new_version,
            "signed_by_old": one.signed_by_old,
            "signed_by_new": one.signed_by_new,
        }
        for one in client.list_continuity_statements(_LOG_KEY)
    ]
    return {"key": _LOG_KEY, "vkeys": vkeys, "statements": statements}


def _progress() -> Progress:
    columns = TextColumn("exporting"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    console = Console(stderr=True)
    return Progress(*columns, console=console, disable=not console.is_terminal, transient=True)
