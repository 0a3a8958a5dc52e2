"""Witnesses and push targets from what the settings say about them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

from hsmsigner.errors import ConfigurationError
from hsmsigner.operations.ports.witness import PushTarget
from hsmsigner.transparency.cosignature import parse_witness_key
from hsmsigner.witness.client import HttpWitness
from hsmsigner.witness.exchange import Endpoint
from hsmsigner.witness.push import FolderTarget, HttpTarget

# One request and its answer, and there may be two of them.
TIMEOUT_S = 10.0


def make_witnesses(pairs: Iterable[tuple[str, str]], *, timeout_s: float = TIMEOUT_S) -> list[HttpWitness]:
    """Make a witness of each pair of verification key and URL.

    Raises:
        ConfigurationError: a key or URL is none, or two witnesses have one name or one key: they would count twice.
    """
    made: list[HttpWitness] = []
    names: set[str] = set()
    keys: set[bytes] = set()
    for number, (vkey, url) in enumerate(pairs, 1):
        where = f"audit.witnesses, number {number}"
        try:
            key, endpoint = parse_witness_key(vkey), Endpoint.parse(url)
        except ValueError as error:
            raise ConfigurationError(f"{where}: {error}") from error
        if key.name in names or key.public_key in keys:
            raise ConfigurationError(f"{where}: another witness has the same name or key, and would be counted twice")
        names.add(key.name)
        keys.add(key.public_key)
        made.append(HttpWitness(key, endpoint, timeout_s))
    return made


def make_targets(urls: Sequence[str], *, timeout_s: float = TIMEOUT_S) -> list[PushTarget]:
    """Make a target of each URL: `file:///folder`, `http://...` or `https://...`.

    Raises:
        ConfigurationError: a URL is none of these; does not repeat it, since it may hold a password.
    """
    return [_make_target(url, f"audit.push, number {number}", timeout_s) for number, url in enumerate(urls, 1)]


def _make_target(url: str, where: str, timeout_s: float) -> PushTarget:
    try:
        parts = urlsplit(url)
        if parts.scheme != "file":
            return HttpTarget(Endpoint.parse(url), timeout_s)
    except ValueError as error:
        raise ConfigurationError(f"{where}: {error}") from error
    if parts.netloc or not parts.path.startswith("/"):
        raise ConfigurationError(f"{where}: a folder is written with three slashes, as in file:///srv/checkpoints")
    return FolderTarget(Path(unquote(parts.path)), timeout_s)
