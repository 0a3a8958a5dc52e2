"""Options that several commands share, and the client they are turned into."""

from __future__ import annotations

import sys
import uuid
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
# The largest `limits.message_bytes` there is; a device file would never end.
LARGEST_INPUT = 64 * 2**20
DEFAULT_TIMEOUT_S = 15.0


def config_path(state: Path | None, config: Path | None) -> Path:
    """The settings file that --state or --config names.

    Raises:
        typer.BadParameter: neither or both are given.
    """
    if (state is None) == (config is None):
        raise typer.BadParameter("give --state DIR (made by `hsmsigner init DIR`) or --config FILE")
    return config if config is not None else state / "hsmsigner.yaml"  # type: ignore[operator] # one is not None


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
