"""`hsmsigner audit receipt`, `consistency`, `checkpoint` and `status`: what an auditor takes away."""

from __future__ import annotations

import base64
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from hsmsigner.cli.options import JsonOption, OutOption, ProfileOption, write_output
from hsmsigner.cli.output import print_fields, print_json, print_line, print_table
from hsmsigner.client import SignerClient


def receipt(
    record: Annotated[
        str, typer.Argument(help="A request_id, a record number, or the SHA-256 of a signature.", metavar="RECORD")
    ],
    profile: ProfileOption,
    out: OutOption = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """Write one record with the proof that the log has it, and the checkpoint it is proven in (C2SP tlog-proof).

    Of a request_id, the record that says how it ended. `hsmsigner-verify receipt FILE` checks it, anywhere.

    Example: hsmsigner audit receipt 7a3f0b52-4c1e-4a57-9d0c-2f6b1e0c9d11 --out payment.tlog-proof
    """
    with SignerClient.from_profile(profile) as client:
        answer = client.get_inclusion_proof(**_named(record))
        vkeys = client.get_checkpoint().vkeys
    lines = ["c2sp.org/tlog-proof@v1", f"extra {_base64(answer.record.record)}", f"index {answer.record.sequence}"]
    text = "\n".join([*lines, *map(_base64, answer.hashes), "", answer.checkpoint.note])
    _write(out, text, {"sequence": answer.record.sequence, "tree_size": answer.checkpoint.size}, as_json=as_json)
    if out is not None and not as_json:
        print_fields(
            {
                "receipt": f"record {answer.record.sequence} in the tree of {answer.checkpoint.size} records, in {out}",
                "check with": f"hsmsigner-verify receipt {out} " + " ".join(f"--log-key '{vkey}'" for vkey in vkeys),
            }
        )


def consistency(
    old: Annotated[int, typer.Argument(help="Size of the older tree.", min=0, metavar="SIZE")],
    profile: ProfileOption,
    new: Annotated[int, typer.Argument(help="Size of the newer one; 0 is the newest checkpoint.", min=0)] = 0,
    out: OutOption = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """Write the proof that the log of one size is the beginning of the log of another.

    `hsmsigner-verify checkpoints OLD NEW --proof FILE` checks it against two checkpoints that you kept.

    Example: hsmsigner audit consistency 40960 --out growth.proof
    """
    with SignerClient.from_profile(profile) as client:
        answer = client.get_consistency_proof(old, new)
    lines = ["hsmsigner-consistency@v1", f"old {answer.old_size}", f"new {answer.new_size}"]
    text = "\n".join([*lines, *map(_base64, answer.hashes)]) + "\n"
    _write(out, text, {"old_size": answer.old_size, "new_size": answer.new_size}, as_json=as_json)
    if out is not None and not as_json:
        print_line(f"wrote the proof from {answer.old_size} to {answer.new_size} records to {out}")


def checkpoint(profile: ProfileOption, out: OutOption = None, *, as_json: JsonOption = False) -> None:
    """Print the newest checkpoint, as the log and its witnesses signed it. Keep it: no later log may contradict it.

    Example: hsmsigner audit checkpoint --out "checkpoint-$(date +%F)"
    """
    with SignerClient.from_profile(profile) as client:
        answer = client.get_checkpoint()
    newest = answer.checkpoint
    more = {"size": newest.size, "root_hash": newest.root_hash.hex(), "vkeys": list(answer.vkeys)}
    _write(out, newest.note, more, as_json=as_json)
    if out is not None and not as_json:
        print_line(f"wrote the checkpoint of {newest.size} records to {out}")


def status(profile: ProfileOption, *, as_json: JsonOption = False) -> None:
    """Show how the log stands: its size, checkpoints, witnesses, pushes, and what the token remembers.

    Example: hsmsigner audit status
    """
    with SignerClient.from_profile(profile) as client:
        found = client.get_log_status()
        vkeys = list(client.get_checkpoint().vkeys) if found.HasField("newest_checkpoint") else []
    newest, witnessed = found.newest_checkpoint, found.newest_witnessed
    if as_json:
        print_json(_status_json(found, vkeys))
        return
    head = found.tree_head
    fields = {
        "origin": found.origin,
        "records": f"{head.size}" + (f", the first {found.first_sequence} sealed" if found.first_sequence else ""),
        "checkpoint": f"{newest.size} records, {_ago(newest.create_time)}" if newest.note else "none yet",
        "token remembers": f"{found.remembered_size} records" if found.remembered_size else "nothing yet",
    }
    if found.witnesses:
        rule = "signing stops without them" if found.is_fail_closed else "signing goes on without them"
        fields["quorum"] = f"{found.quorum} of {len(found.witnesses)} witnesses; {rule}"
        fields["witnessed"] = f"{witnessed.size} records, {_ago(witnessed.create_time)}" if witnessed.note else "none"
    if vkeys:
        fields["log key"] = vkeys[-1]
    print_fields(fields)
    rows = [
        ("witness", one.name, _size(one.cosigned_size), _ago(one.cosign_time), one.fault or "ok")
        for one in found.witnesses
    ] + [("push", one.target, _size(one.pushed_size), _ago(one.push_time), one.fault or "ok") for one in found.pushes]
    if rows:
        print_line("")
        print_table(("to", "name", "size", "when", "state"), rows, empty="")


def _named(record: str) -> dict[str, Any]:
    if record.isascii() and record.isdigit() and len(record) < len(str(2**63)):
        return {"sequence": int(record)}
    if len(record) == 64:  # noqa: PLR2004 - 32 bytes in hex
        try:
            return {"signature_sha256": bytes.fromhex(record)}
        except ValueError:
            pass
    try:
        return {"request_id": str(uuid.UUID(record))}
    except ValueError:
        raise typer.BadParameter(
            "must be a request_id (a UUID), a record number, or the SHA-256 of a signature in hex"
        ) from None


def _write(out: Path | None, text: str, more: dict[str, Any], *, as_json: bool) -> None:
    if out is not None:
        write_output(out, text.encode())
    if as_json:
        print_json(more | {"text": text})
    elif out is None:
        typer.echo(text, nl=False)


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _size(size: int) -> str:
    return str(size) if size else "-"


def _ago(time: Any) -> str:
    if not time.seconds:
        return "never"
    seconds = (datetime.now(UTC) - time.ToDatetime(tzinfo=UTC)).total_seconds()
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit} ago"
    return f"{max(seconds, 0):.0f} s ago"


def _status_json(found: Any, vkeys: list[str]) -> dict[str, Any]:
    def shown(time: Any) -> str | None:
        return time.ToDatetime(tzinfo=UTC).isoformat().replace("+00:00", "Z") if time.seconds else None

    return {
        "origin": found.origin,
        "size": found.tree_head.size,
        "root_hash": found.tree_head.root_hash.hex(),
        "first_sequence": found.first_sequence,
        "checkpoint_size": found.newest_checkpoint.size,
        "checkpoint_time": shown(found.newest_checkpoint.create_time),
        "remembered_size": found.remembered_size,
        "quorum": found.quorum,
        "is_fail_closed": found.is_fail_closed,
        "witnessed_size": found.newest_witnessed.size,
        "witnesses": [
            {"name": one.name, "size": one.cosigned_size, "time": shown(one.cosign_time), "fault": one.fault}
            for one in found.witnesses
        ],
        "pushes": [
            {"target": one.target, "size": one.pushed_size, "time": shown(one.push_time), "fault": one.fault}
            for one in found.pushes
        ],
        "vkeys": vkeys,
    }
