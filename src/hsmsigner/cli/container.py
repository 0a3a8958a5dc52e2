"""The development appliance in a container: `python -m hsmsigner.cli.container`, as docker/compose.yaml runs it.

Makes an appliance with a SoftHSM2 token where the volume has none yet, gives its clients their certificates, and
serves. With a token of your own, run `hsmsigner serve --config FILE` instead.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from hsmsigner.cli.output import ExitCode, print_fault
from hsmsigner.errors import ConfigurationError
from hsmsigner.provision import DEV_CLIENTS, Client, initialise_state, profile_text, remove_unfinished
from hsmsigner.supervisor import run_supervisor

_PORT = 8443
# Asks for the appliance's health from inside, and is granted nothing.
_PROBE = Client("probe", "spiffe://dev.hsmsigner/health/probe")


def run(state: Path, clients: Path, *, name: str, published: str, pin_file: Path) -> int:
    """Make the state folder on first use, hand out certificates, serve; returns the exit code.

    Clients reach the appliance as `name` from other containers, and as `published` (host:port) from the host.

    Raises:
        ConfigurationError: the folders cannot be written, or the appliance cannot run as it is set up.
    """
    try:
        with _alone_in(state.parent):
            _make_where_missing(state, name, pin_file)
            _hand_out(state / "tls", clients, {"network": f"{name}:{_PORT}", "host": published})
    except OSError as error:
        raise ConfigurationError(
            f"cannot use {error.filename}: {error.strerror}; the volume must be writable by user {os.getuid()}"
        ) from error
    return run_supervisor(state / "hsmsigner.yaml")


@contextmanager
def _alone_in(volume: Path) -> Iterator[None]:
    """Lock the folder: a second container on the volume waits, and then finds what the first has made."""
    descriptor = os.open(volume, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _make_where_missing(state: Path, name: str, pin_file: Path) -> None:
    if (state / "hsmsigner.yaml").exists():
        return
    # What a kill in the middle of an earlier try left: a CA's key and a token that nobody would ever look for.
    remove_unfinished(state)
    initialise_state(
        state,
        now=datetime.now(UTC),
        # All addresses of the container: which of them the host publishes is for compose to say.
        listen=f"0.0.0.0:{_PORT}",
        server_names=(name,),
        clients=(*DEV_CLIENTS, _PROBE),
        address_for_clients=f"127.0.0.1:{_PORT}",
        pin_file=pin_file,
    )


def _hand_out(tls: Path, clients: Path, addresses: dict[str, str]) -> None:
    """Copy each client's certificate and key, and write its profiles: `network/NAME.yaml`, `host/NAME.yaml`.

    Raises:
        ConfigurationError: the folder cannot be written.
    """
    names = ["ca.pem", *(f"{client.name}{part}.pem" for client in DEV_CLIENTS for part in ("", "-key"))]
    contents = {clients / "tls" / name: (tls / name).read_bytes() for name in names}
    for folder, address in addresses.items():
        contents |= {
            clients / folder / f"{client.name}.yaml": profile_text(client, address).encode() for client in DEV_CLIENTS
        }
    try:
        for path, content in contents.items():
            _put(path, content)
    except OSError as error:
        raise ConfigurationError(f"cannot write client certificates to {clients}: {error.strerror}") from error


def _put(path: Path, content: bytes) -> None:
    # Not written again: a volume that is full by now is no reason not to start.
    if path.is_file() and path.read_bytes() == content:
        return
    path.parent.mkdir(exist_ok=True)
    # Renamed into place: a client that starts at the same moment reads a whole file or none.
    waiting = path.with_suffix(".new")
    waiting.write_bytes(content)
    # For whichever user a developer's service runs as. These keys open a development appliance and nothing else.
    waiting.chmod(0o644)
    waiting.replace(path)


def main() -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--state", type=Path, default=Path("/var/lib/hsmsigner/appliance"))
    parser.add_argument("--clients", type=Path, default=Path("/clients"))
    parser.add_argument("--name", default="hsmsigner", help="what other containers call this one")
    parser.add_argument("--published", default=f"127.0.0.1:{_PORT}", help="where the host reaches it")
    parser.add_argument("--pin-file", type=Path, default=Path("/run/secrets/token_pin"))
    options = parser.parse_args()
    try:
        code = run(
            options.state, options.clients, name=options.name, published=options.published, pin_file=options.pin_file
        )
    except ConfigurationError as error:
        print_fault(str(error), as_json=False)
        sys.exit(ExitCode.CONFIGURATION)
    sys.exit(ExitCode.CONFIGURATION if code == os.EX_CONFIG else code)


if __name__ == "__main__":
    main()
