"""Build step: the appliance's user, and its folders, from which a new volume takes its owner."""

from __future__ import annotations

import os
from pathlib import Path

UID = 10001
HOME = Path("/var/lib/hsmsigner")
FOLDERS = {HOME: 0o700, Path("/clients"): 0o755, Path("/etc/hsmsigner"): 0o755}


def main() -> None:
    """Write the account and make the folders."""
    for file, line in (
        (Path("/etc/passwd"), f"hsmsigner:x:{UID}:{UID}:hsmsigner:{HOME}:/usr/sbin/nologin\n"),
        (Path("/etc/group"), f"hsmsigner:x:{UID}:\n"),
    ):
        with file.open("a", encoding="utf-8") as accounts:
            accounts.write(line)
    for folder, mode in FOLDERS.items():
        folder.mkdir(mode=mode, parents=True, exist_ok=True)
        folder.chmod(mode)
    for folder in (HOME, Path("/clients")):
        os.chown(folder, UID, UID)


if __name__ == "__main__":
    main()
