"""All checks in order: first what stands in files, then who is running, then the port and the token."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from hsmsigner.config import Settings, load_settings
from hsmsigner.doctor.certificates import check_certificates
from hsmsigner.doctor.finding import Finding, fault, fine, warning
from hsmsigner.doctor.running import check_running
from hsmsigner.doctor.store import check_store
from hsmsigner.doctor.token_probe import check_token
from hsmsigner.domain.policy_document import parse_policy
from hsmsigner.domain.positioned_yaml import DocumentError
from hsmsigner.errors import ConfigurationError
from hsmsigner.state_lock import holder_of, take_lock

_PORT_FAULTS = {
    errno.EADDRINUSE: ("is taken by another process", "`ss -ltnp` shows which; stop it, or change `listen`"),
    errno.EADDRNOTAVAIL: ("is no address of this machine", "`ip address` lists those there are; change `listen`"),
    errno.EACCES: ("needs a privilege that this user lacks", "take a port from 1024 up, or grant CAP_NET_BIND_SERVICE"),
}


def diagnose(config: Path, now: datetime, *, with_token: bool = True) -> Iterator[Finding]:
    """Check one appliance. Changes nothing, and logs in to the token at most once.

    With `with_token` False a token that no appliance uses is left alone.
    """
    try:
        settings = load_settings(config)
    except ConfigurationError as error:
        yield fault("configuration", str(error), "correct the file; config/hsmsigner.yaml explains every field")
        return
    yield fine("configuration", f"{config} is valid")
    yield _policy(settings.policy)
    yield from check_certificates(settings.tls, now)
    yield from check_store(settings, now)
    yield from _pin_file(settings)
    if (holder := holder_of(settings)) is not None:
        yield fine("appliance", f"runs on this folder as process {holder}; it is asked about the token")
        yield from check_running(settings)
        return
    yield _port(settings.listen)
    if not with_token:
        yield warning("token", "was not looked at, as you asked", "run doctor without --skip-token to have it checked")
        return
    yield from _unused_token(config, settings)


def _unused_token(config: Path, settings: Settings) -> Iterator[Finding]:
    try:
        settings.run_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Held meanwhile, so that no appliance starts on the token while the probe is at it.
        lock = take_lock(settings)
    except OSError as error:
        yield fault("token", f"{settings.run_dir} cannot be locked: {error.strerror}", "make the state folder writable")
        return
    except ConfigurationError as error:
        yield fault("token", str(error), "let it finish starting, and run doctor again")
        return
    try:
        yield from check_token(config)
    finally:
        os.close(lock)


def _policy(path: Path) -> Finding:
    try:
        policy = parse_policy(path.read_bytes(), revision=1)
    except OSError as error:
        return fault(
            "policy", f"{path} cannot be read: {error.strerror}", "config/policy.yaml is an example to begin with"
        )
    except DocumentError as error:
        return fault("policy", f"{path}:\n{error}", "correct the document; config/policy.yaml explains every field")
    return fine("policy", f"{path} is valid (grants: {len(policy.grants)}, key entries: {len(policy.key_rules)})")


def _pin_file(settings: Settings) -> Iterator[Finding]:
    path = settings.token.pin.file
    if path is None or not path.exists():
        # A missing one is told by the token check, which needs it.
        return
    if path.stat().st_mode & 0o077:
        yield warning("token.pin", f"{path} can be read by others than its owner", f"chmod 600 {path}")


def _port(listen: str) -> Finding:
    host, _, port = listen.rpartition(":")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host.strip("[]"), int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            # As the server will: connections of the last run that linger are no obstacle.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except socket.gaierror as error:
        return fault("port", f"{listen}: {error.strerror}", "write an address of this machine in `listen`")
    except OverflowError:
        return fault("port", f"{listen}: there is no such port", "take one from 1 to 65535")
    except OSError as error:
        known = _PORT_FAULTS.get(error.errno or 0)
        message, way_out = known or (os.strerror(error.errno or 0), "change `listen`")
        return fault("port", f"{listen} {message}", way_out)
    return fine("port", f"{listen} is free")
