"""`hsmsigner-verify`: for auditors, offline. Needs only Python and `cryptography`; trusts only the keys it is given.

Exit codes: 0 nothing is wrong, 5 a fault was found, 2 usage, 1 a file cannot be read.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from hsmsigner.verifier.checks import Told, check_export, check_growth, check_proof, check_receipt
from hsmsigner.verifier.fault import VerificationError
from hsmsigner.verifier.note import VerificationKey, parse_vkey
from hsmsigner.verifier.progress import ProgressLine
from hsmsigner.verifier.trust import Trust

FINE, UNREADABLE, USAGE, FAULT = 0, 1, 2, 5
_MOST_SHOWN = 20
_EPILOG = "exit codes: 0 nothing is wrong, 5 a fault was found, 2 usage, 1 a file cannot be read"
_EXAMPLES = {
    "export": "hsmsigner-verify export /media/audit --log-key log.vkey --witness witness.vkey --checkpoint last-year",
    "receipt": "hsmsigner-verify receipt 4711.tlog-proof --log-key log.vkey --signature payment.sig",
    "checkpoints": "hsmsigner-verify checkpoints last-year today --log-key log.vkey --proof last-year-today.proof",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = build_parser()
    asked = parser.parse_args(arguments)
    trust = _trust(parser, asked)
    progress = ProgressLine("verifying")
    try:
        told = _check(asked, trust, progress)
    except VerificationError as error:
        told = Told("", faults=[error])
    except OSError as error:
        progress.clear()
        _print_unreadable(error, as_json=asked.json)
        return UNREADABLE
    progress.clear()
    told.fields["seconds"] = round(progress.seconds, 3)
    (_print_json if asked.json else _print_text)(told)
    return FAULT if told.faults else FINE


def _check(asked: argparse.Namespace, trust: Trust, progress: ProgressLine) -> Told:
    match asked.command:
        case "export":
            return check_export(asked.folder, asked.archive, asked.checkpoint, trust, progress.tell)
        case "receipt":
            return check_receipt(asked.file, asked.log_keys, asked.signature, trust)
        case _ if asked.export is not None:
            return check_growth(asked.old, asked.new, asked.export, trust, progress.tell)
        case _:
            return check_proof(asked.old, asked.new, asked.proof, asked.log_keys, trust)


def build_parser() -> argparse.ArgumentParser:
    """Put the commands and their options together."""
    parser = argparse.ArgumentParser(
        prog="hsmsigner-verify",
        description="Verify what an appliance's log says, offline. Shares no code with the appliance.",
        epilog=_EPILOG,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    export = _command(commands, "export", "verify an export: every record, hash and checkpoint, and every rule")
    export.add_argument("folder", type=Path, metavar="DIR", help="what `hsmsigner audit export` wrote")
    export.add_argument(
        "--archive", action="append", default=[], type=Path, metavar="DIR", help="sealed records before it; repeatable"
    )
    export.add_argument(
        "--checkpoint", action="append", default=[], type=Path, metavar="FILE",
        help="a checkpoint you kept, that the log must have had; finds a log that was set back; repeatable",
    )  # fmt: skip
    receipt = _command(commands, "receipt", "verify that one record is in the log")
    receipt.add_argument("file", type=Path, metavar="FILE", help="what `hsmsigner audit receipt` wrote")
    receipt.add_argument("--signature", type=Path, metavar="FILE", help="the signature that the record must be of")
    checkpoints = _command(commands, "checkpoints", "verify that a later checkpoint contains an earlier one")
    checkpoints.add_argument("old", type=Path, metavar="OLD", help="the earlier checkpoint")
    checkpoints.add_argument("new", type=Path, metavar="NEW", help="the later checkpoint")
    for command in (receipt, checkpoints):
        command.add_argument(
            "--log-keys", type=Path, metavar="FILE", help="log-key.json of an export, after a rotation of the log's key"
        )
    way = checkpoints.add_mutually_exclusive_group(required=True)
    way.add_argument("--proof", type=Path, metavar="FILE", help="a consistency proof between the two")
    way.add_argument("--export", type=Path, metavar="DIR", help="an export whose tiles hold both")
    return parser


def _command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], name: str, summary: str
) -> argparse.ArgumentParser:
    command = commands.add_parser(
        name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.",
        epilog=f"example: {_EXAMPLES[name]}\n\n{_EPILOG}", formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    command.add_argument(
        "--log-key", action="append", required=True, metavar="VKEY",
        help="the log's verification key (name+id+base64), or a file with it; repeatable",
    )  # fmt: skip
    command.add_argument(
        "--witness", action="append", default=[], metavar="VKEY", help="the same of a witness; repeatable"
    )
    command.add_argument("--quorum", type=int, metavar="K", help="so many witnesses must have signed; default: all")
    command.add_argument("--json", action="store_true", help="print {fault, sequence, message, ...}")
    return command


def _trust(parser: argparse.ArgumentParser, asked: argparse.Namespace) -> Trust:
    keys = [_key(parser, text, "--log-key") for text in asked.log_key]
    witnesses = [_key(parser, text, "--witness") for text in asked.witness]
    if any(key.is_witness for key in keys) or len({key.name for key in keys}) != 1:
        parser.error("--log-key: must be keys of one log, of type 0x01 or 0x02")
    names = {key.name for key in witnesses}
    if not all(key.is_witness for key in witnesses):
        parser.error("--witness: must be keys of witnesses, of type 0x04")
    if len({key.public for key in witnesses}) != len({(key.name, key.public) for key in witnesses}):
        parser.error("--witness: one key under two names would be counted twice")
    if {key.public for key in witnesses} & {key.public for key in keys}:
        parser.error("--witness: the log's own key is no witness")
    quorum = len(names) if asked.quorum is None else asked.quorum
    if not 0 <= quorum <= len(names):
        parser.error(f"--quorum: must be 0 to {len(names)}, the number of witnesses given")
    return Trust(tuple(dict.fromkeys(keys)), tuple(dict.fromkeys(witnesses)), quorum)


def _key(parser: argparse.ArgumentParser, text: str, option: str) -> VerificationKey:
    try:
        return parse_vkey(text if "+" in text else Path(text).read_text("utf-8"))
    except (ValueError, OSError) as error:
        parser.error(f"{option}: {error}")


def _print_json(told: Told) -> None:
    first = told.faults[0] if told.faults else None
    fields: dict[str, object] = {
        "fault": first.fault if first else None,
        "sequence": first.sequence if first else None,
        "message": str(first) if first else told.message,
        "faults": [{"fault": fault.fault, "sequence": fault.sequence, "message": str(fault)} for fault in told.faults],
        "notes": told.notes,
    }
    print(json.dumps(fields | told.fields))  # noqa: T201 - a command


def _print_text(told: Told) -> None:
    lines = [f"FAULT {fault.fault}: {fault}" for fault in told.faults[:_MOST_SHOWN]]
    if len(told.faults) > _MOST_SHOWN:
        lines.append(f"and {len(told.faults) - _MOST_SHOWN} more; --json lists them")
    if not told.faults:
        lines.append(f"verified: {told.message}")
    lines += [f"  {name.replace('_', ' ')}: {_text(name, value)}" for name, value in told.fields.items()]
    lines += [f"  not checked: {note}" for note in told.notes]
    for line in lines:
        # What came out of a file must not steer the reader's terminal.
        print("".join(one if _is_shown(one) else ascii(one)[1:-1] for one in line))  # noqa: T201 - a command


def _is_shown(character: str) -> bool:
    """Whether a character may go to the terminal, and can."""
    if not character.isprintable():
        return False
    try:
        character.encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return False
    return True


def _text(name: str, value: object) -> str:
    if not isinstance(value, dict):
        return str(value)
    if name == "witnesses":
        return ", ".join(f"{who} at {_time(seen)}" for who, seen in value.items()) or "none"
    return ", ".join(f"{kind} {count}" for kind, count in value.items())


def _time(seconds: int) -> str:
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (ValueError, OverflowError, OSError):
        return f"{seconds} s after 1970"


def _print_unreadable(error: OSError, *, as_json: bool) -> None:
    message = f"cannot be read: {error}"
    if as_json:
        print(json.dumps({"fault": None, "sequence": None, "message": message, "error": "unreadable"}))  # noqa: T201
    else:
        print(f"hsmsigner-verify: {message}", file=sys.stderr)  # noqa: T201 - a command
