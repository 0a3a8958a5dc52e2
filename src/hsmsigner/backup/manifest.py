"""What a backup says of itself: its files with their hashes, and the state of the log in it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any, BinaryIO, Self

from hsmsigner.errors import ConfigurationError

FORMAT = "hsmsigner-backup@v1"
MANIFEST = "manifest.json"
STORE = "store.sqlite3"
SETTINGS = "hsmsigner.yaml"
POLICY = "policy.yaml"
LARGEST_MANIFEST = 65_536

_HASH_CHARACTERS = 64


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One file; `sha256` in hex."""

    sha256: str
    bytes: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """`time` is RFC 3339; `size` and `root` (hex) are the log's, `checkpoint_size` its newest signed checkpoint's."""

    time: str
    version: str
    origin: str
    size: int
    root: str
    checkpoint_size: int
    policy_revision: int
    files: dict[str, FileEntry]
    format: str = FORMAT

    def encode(self) -> bytes:
        """As it is written to `manifest.json`."""
        return (json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n").encode()

    @classmethod
    def decode(cls, file: BinaryIO) -> Self:
        """Read one.

        Raises:
            ConfigurationError: it is not a manifest of this format.
        """
        content = file.read(LARGEST_MANIFEST + 1)
        try:
            fields: Any = json.loads(content)
            if fields["format"] != FORMAT:
                raise ConfigurationError(f"the backup's format is {str(fields['format'])[:80]!r}, not {FORMAT}")
            files = {str(name): FileEntry(**entry) for name, entry in fields.pop("files").items()}
            manifest = cls(files=files, **fields)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ConfigurationError(f"the backup's {MANIFEST} cannot be read") from error
        if not _is_whole(manifest):
            raise ConfigurationError(f"the backup's {MANIFEST} is not one that `hsmsigner backup` wrote")
        return manifest


def _is_whole(manifest: Manifest) -> bool:
    texts = manifest.time, manifest.version, manifest.origin
    entries = manifest.files.values()
    sizes = [entry.bytes for entry in entries]
    counts = manifest.size, manifest.checkpoint_size, manifest.policy_revision, *sizes
    hashes = manifest.root, *(entry.sha256 for entry in entries)
    return (
        set(manifest.files) == {STORE, SETTINGS, POLICY}
        and {type(text) for text in (*texts, *hashes)} == {str}
        and {type(count) for count in counts} == {int}
        and min(counts) >= 0
        and {len(digest) for digest in hashes} == {_HASH_CHARACTERS}
    )
