"""The proof verifier of Debian's torchwood, spicy-torchwood: records in files, and proofs beside them."""

from __future__ import annotations

import subprocess
from base64 import b64encode
from collections.abc import Sequence
from pathlib import Path


def spicy(folder: Path, index: int, record: bytes, proof: Sequence[bytes], note: str) -> Path:
    """A record in a file and our proof beside it, in the form that this verifier reads: a receipt without its head."""
    file = folder / f"{index}"
    file.write_bytes(record)
    hashes = "".join(b64encode(one).decode() + "\n" for one in proof)
    file.with_suffix(".spicy").write_text(f"index {index}\n{hashes}\n{note}")
    return file


def verified(programs: Path, vkey: str, *files: Path) -> bool:
    """Whether it finds that all these records are in the log of this key."""
    command = [str(programs / "spicy-torchwood"), "-verify", vkey, *map(str, files)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ("verified!" in result.stderr) == (result.returncode == 0)
    return result.returncode == 0
