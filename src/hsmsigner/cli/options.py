"""Options that several commands share, and the client they are turned into."""

from __future__ import annotations

import re
import sys
import uuid
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer

ProfileOption = Annotated[
    Path,
    typer.Option(
        "--profile",
        envvar="HSMSIGNER_PROFILE",
        help="Client profile: server address and certificates.",
        metavar="FILE",
        exists=True,
        dir_okay=False,
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, for programs; also for errors, on stderr.")]
TimeoutOption = Annotated[
    float, typer.Option("--timeout", help="Seconds to wait for the server.", min=0.1, max=600, metavar="SECONDS")
]
StateOption = Annotated[
    Path | None,
    typer.Option("--state", help="State folder made by `hsmsigner init`.", metavar="DIR", exists=True, file_okay=False),
]
ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", help="Settings file, where it lies elsewhere.", metavar="FILE", dir_okay=False),
]
OutOption = Annotated[
    Path | None, typer.Option("--out", help="Write to this file instead.", metavar="FILE", dir_okay=False)
]
KeyArgument = Annotated[str, typer.Argument(help="keys/NAME, or NAME alone.", metavar="KEY")]
VersionArgument = Annotated[str, typer.Argument(help="keys/NAME, or keys/NAME/versions/N.", metavar="KEY")]
OneVersionArgument = Annotated[str, typer.Argument(help="keys/NAME/versions/N, or NAME/versions/N.", metavar="VERSION")]
ReasonOption = Annotated[str, typer.Option("--reason", help="Why, for the record.", metavar="TEXT")]
EtagOption = Annotated[
    str,
    typer.Option("--etag", help="Change it only if it still is as you saw it (`keys show --json`).", metavar="ETAG"),
]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
# The largest `limits.message_bytes` there is; a device file would never end.
LARGEST_INPUT = 64 * 2**20
DEFAULT_TIMEOUT_S = 15.0

_PREFIX = "keys/"
_DURATION = re.compile(r"([0-9]{1,9})(s|m|h|d)", re.ASCII)
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def config_path(state: Path | None, config: Path | None) -> Path:
    """The settings file that --state or --config names.

    Raises:
        typer.BadParameter: neither or both are given.
    """
    if (state is None) == (config is None):
        raise typer.BadParameter("give --state DIR (made by `hsmsigner init DIR`) or --config FILE")
    return config if config is not None else state / "hsmsigner.yaml"  # type: ignore[operator] # one is not None


def key_name(text: str) -> str:
    """`keys/NAME` from itself or from NAME."""
    return _PREFIX + text.removeprefix(_PREFIX)


def checked_reason(text: str, option: str = "--reason") -> str:
    """A reason that says something.

    Raises:
        typer.BadParameter: blank.
    """
    if not text.strip():
        raise typer.BadParameter("must say why: it goes into the record", param_hint=option)
    return text


def parsed_duration(text: str, option: str) -> timedelta:
    """Read `90s`, `15m`, `12h` or `30d`; `0s` is none at all.

    Raises:
        typer.BadParameter: anything else.
    """
    match = _DURATION.fullmatch(text)
    if match is None:
        raise typer.BadParameter("must be a whole number with s, m, h or d, as in 15m or 30d", param_hint=option)
    return timedelta(**{_UNITS[match[2]]: int(match[1])})


def parsed_time(text: str, now: datetime, option: str) -> datetime:
    """Read a time with its zone (RFC 3339, as in 2026-12-01T06:00:00Z), or one from now on, as in +12h.

    Raises:
        typer.BadParameter: anything else.
    """
    if text.startswith("+"):
        return now + parsed_duration(text[1:], option)
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        time = None
    if time is None or time.tzinfo is None:
        raise typer.BadParameter("must be a time with its zone, as in 2026-12-01T06:00:00Z, or +12h", param_hint=option)
    return time


def confirmed(question: str, *, is_yes: bool, as_json: bool) -> None:
    """Ask before something that cannot be undone.

    Raises:
        typer.BadParameter: there is nobody to ask, and --yes was not given.
        typer.Abort: the answer was no.
    """
    if is_yes:
        return
    if as_json or not sys.stdin.isatty():
        raise typer.BadParameter(f"{question} Nobody can be asked here: say --yes", param_hint="--yes")
    typer.confirm(question, abort=True, err=True)


def checked_request_id(text: str | None) -> str | None:
    """A UUID in the 36-character form, or None.

    Raises:
        typer.BadParameter: anything else.
    """
    if text is None:
        return None
    try:
        canonical = str(uuid.UUID(text))
    except ValueError:
        canonical = ""
    if canonical != text.lower():
        raise typer.BadParameter(f"must be a UUID such as {uuid.uuid4()}; leave it out to have one made")
    return text


def read_input(path: Path) -> bytes:
    """The bytes of a file, or of standard input for `-`.

    Raises:
        typer.BadParameter: it cannot be read, or is larger than any appliance takes.
    """
    try:
        if str(path) == "-":
            content = sys.stdin.buffer.read(LARGEST_INPUT + 1)
        else:
            with path.open("rb") as file:
                content = file.read(LARGEST_INPUT + 1)
    except OSError as error:
        raise typer.BadParameter(f"cannot read {path}: {error.strerror}") from error
    if len(content) > LARGEST_INPUT:
        raise typer.BadParameter(f"{path} is larger than {LARGEST_INPUT} bytes, which no appliance takes")
    return content


def write_output(path: Path, content: bytes) -> None:
    """Write a result to a file.

    Raises:
        typer.BadParameter: it cannot be written.
    """
    try:
        path.write_bytes(content)
    except OSError as error:
        raise typer.BadParameter(f"cannot write {path}: {error.strerror}") from error
