"""A throw-away SoftHSM2 token behind p11-kit's server socket: whoever shares the socket's folder uses it as a module.

The client side loads p11-kit-client.so with P11_KIT_SERVER_ADDRESS=unix:path=FOLDER/pkcs11.sock. Each connection is
served by a process of its own, so use one client at a time: SoftHSM2 does not bear two writers. Settings, by
environment: TOKEN_LABEL (softhsm), TOKEN_PIN (1234), TOKEN_SO_PIN (5678), TOKEN_FOLDER (/tmp/token),
SOCKET_FOLDER (/run/pkcs11).

The container's user must be the client's user: p11-kit's server refuses others. Run as a program with --check, exit
code 0 says that the socket takes connections.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

MODULE = "/usr/lib/softhsm/libsofthsm2.so"


def main() -> None:
    """Make the token where there is none, then become the server."""
    socket_path = Path(os.environ.get("SOCKET_FOLDER", "/run/pkcs11")) / "pkcs11.sock"
    if sys.argv[1:] == ["--check"]:
        _connect(socket_path)
        return
    folder = Path(os.environ.get("TOKEN_FOLDER", "/tmp/token"))  # noqa: S108 - the container's own tmpfs
    label = os.environ.get("TOKEN_LABEL", "softhsm")
    tokens = folder / "tokens"
    tokens.mkdir(mode=0o700, parents=True, exist_ok=True)
    configuration = folder / "softhsm2.conf"
    configuration.write_text(
        f"directories.tokendir = {tokens}\nobjectstore.backend = file\nlog.level = ERROR\nslots.removable = false\n",
        "utf-8",
    )
    environment = {**os.environ, "SOFTHSM2_CONF": str(configuration)}
    # Only in an empty folder: --free would add a second token of this label at every start.
    if not any(tokens.iterdir()):
        pins = ["--pin", os.environ.get("TOKEN_PIN", "1234"), "--so-pin", os.environ.get("TOKEN_SO_PIN", "5678")]
        command = ["softhsm2-util", "--init-token", "--free", "--label", label, *pins]
        subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)  # noqa: S603 - fixed program
    # Left behind by a server that was killed; bind() would refuse.
    socket_path.unlink(missing_ok=True)
    server = [
        "p11-kit",
        "server",
        "--foreground",
        "--name",
        str(socket_path),
        "--provider",
        MODULE,
        f"pkcs11:token={label}",
    ]
    os.execvpe("p11-kit", server, environment)  # noqa: S606, S607 - no shell is meant, the image's PATH is ours


def _connect(path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.connect(str(path))


if __name__ == "__main__":
    main()
