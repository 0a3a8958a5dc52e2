"""`hsmsigner init`: a new state folder with SoftHSM2 token, development CA, client profiles, settings and policy."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib import resources
from pathlib import Path
from string import Template

from hsmsigner.config import PinSource, Secret, load_settings
from hsmsigner.dev_ca import DevelopmentCa, PemPair
from hsmsigner.errors import ConfigurationError
from hsmsigner.token.softhsm import create_softhsm_token, find_softhsm_module

DEFAULT_LISTEN = "127.0.0.1:8443"
DEFAULT_TOKEN_LABEL = "hsmsigner-dev"  # noqa: S105 - a label, not a secret
_LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")
_ANY_ADDRESS = {"0.0.0.0", "[::]"}  # noqa: S104 - compared with, never bound to


@dataclass(frozen=True, slots=True)
class Client:
    """Somebody who gets a certificate and a profile: `name` names the files, `principal` is the SPIFFE id."""

    name: str
    principal: str


DEV_CLIENTS = (
    Client("operator", "spiffe://dev.hsmsigner/ops/operator"),
    Client("engine", "spiffe://dev.hsmsigner/settlement/engine-1"),
    Client("auditor", "spiffe://dev.hsmsigner/audit/auditor"),
    # Known to the CA and to no grant: to see what a refusal looks like.
    Client("stranger", "spiffe://dev.hsmsigner/unknown/stranger"),
)
_POLICY_GROUPS = {
    "engines": "spiffe://dev.hsmsigner/settlement/*",
    "ops": "spiffe://dev.hsmsigner/ops/*",
    "auditors": "spiffe://dev.hsmsigner/audit/*",
}


def initialise_state(
    directory: Path,
    *,
    now: datetime,
    listen: str = DEFAULT_LISTEN,
    server_names: Sequence[str] = (),
    clients: Sequence[Client] = DEV_CLIENTS,
    token_label: str = DEFAULT_TOKEN_LABEL,
    address_for_clients: str = "",
    pin_file: Path | None = None,
) -> None:
    """Make the state folder of one appliance, whole or not at all.

    `server_names` are the DNS names and addresses the server's certificate holds besides those of loopback. The
    profiles say `address_for_clients`, or where the server listens. The user PIN is the one in `pin_file`, which stays
    where it is and is read at every start; without it one is made up. All files are readable by their owner alone.

    Raises:
        ConfigurationError: the folder exists and holds something, cannot be made, or the token cannot; nothing is left.
    """
    directory = directory.absolute()
    address = address_for_clients or _address_for_clients(listen, server_names)
    _refuse_to_overwrite(directory)
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        # Built beside its place and renamed: whoever finds the folder finds it complete.
        building = Path(tempfile.mkdtemp(prefix=_unfinished_prefix(directory), dir=directory.parent))
    except OSError as error:
        raise ConfigurationError(f"cannot write in {directory.parent}: {error.strerror}") from error
    try:
        _write_certificates(building, (*_LOOPBACK_NAMES, *server_names), clients, now)
        for client in clients:
            _write(building / "profiles" / f"{client.name}.yaml", profile_text(client, address))
        module = _write_token(building / "token", directory / "token", token_label, pin_file)
        # A JSON string is a YAML string too, whatever it holds.
        values = {"listen": listen, "token_label": token_label, "module": str(module)}
        # No two appliances have logs of one name: to a witness they would be one log that contradicts itself.
        values["origin"] = f"dev.hsmsigner/{secrets.token_hex(4)}"
        values["pin_file"] = str(pin_file.absolute()) if pin_file else "token/user.pin"
        quoted = {name: json.dumps(value) for name, value in values.items()}
        _write(building / "policy.yaml", _rendered("policy.yaml", _POLICY_GROUPS))
        _write(building / "hsmsigner.yaml", _rendered("hsmsigner.yaml", quoted))
        load_settings(building / "hsmsigner.yaml")
        # Replaces an empty folder, and fails when somebody filled it since.
        building.rename(directory)
    except OSError as error:
        raise ConfigurationError(
            f"cannot make the state folder {directory}: {error.strerror}; if it is a mount point, name a folder in it"
        ) from error
    finally:
        shutil.rmtree(building, ignore_errors=True)


def remove_unfinished(directory: Path) -> None:
    """Remove what `initialise_state` left beside this folder when it was killed; call it only while nobody makes one.

    Raises:
        OSError: something cannot be removed.
    """
    for building in directory.absolute().parent.glob(f"{_unfinished_prefix(directory)}*"):
        shutil.rmtree(building)


def _unfinished_prefix(directory: Path) -> str:
    # So named that nobody keeps anything of his own there.
    return f".{directory.name}-unfinished-"


def _address_for_clients(listen: str, server_names: Sequence[str]) -> str:
    host, _, port = listen.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise ConfigurationError(f"cannot listen on {listen!r}: must be host:port with a port from 1 to 65535")
    if host in _ANY_ADDRESS:
        host = server_names[0] if server_names else "localhost"
    return f"{host}:{port}"


def _refuse_to_overwrite(directory: Path) -> None:
    if directory.exists() and not directory.is_dir():
        raise ConfigurationError(f"{directory} is a file; name a folder that does not exist yet")
    try:
        if not directory.exists() or not any(directory.iterdir()):
            return
    except OSError as error:
        raise ConfigurationError(f"cannot look into {directory}: {error.strerror}") from error
    if (directory / "hsmsigner.yaml").exists():
        raise ConfigurationError(
            f"{directory} already holds an appliance; serve it with `hsmsigner serve --state {directory}`,"
            " or name another folder. Its keys would be lost with it, so remove it yourself if you mean to"
        )
    raise ConfigurationError(f"{directory} is not empty; name a folder that is empty or does not exist yet")


def _write_certificates(state: Path, names: Sequence[str], clients: Sequence[Client], now: datetime) -> None:
    authority = DevelopmentCa.create("development CA", now)
    _write_pair(state / "tls", "ca", authority.pem)
    _write_pair(state / "tls", "server", authority.issue_server(list(dict.fromkeys(names)), now))
    for client in clients:
        _write_pair(state / "tls", client.name, authority.issue_client(client.principal, now))


def _write_pair(folder: Path, name: str, pair: PemPair) -> None:
    _write(folder / f"{name}.pem", pair.certificate)
    _write(folder / f"{name}-key.pem", pair.private_key)


def profile_text(client: Client, address: str) -> str:
    """A client's profile, for a folder beside the `tls` folder with its certificate."""
    return (
        f"# {client.principal}\n"
        f'server: "{address}"\n'
        "ca: ../tls/ca.pem\n"
        f"certificate: ../tls/{client.name}.pem\n"
        f"private_key: ../tls/{client.name}-key.pem\n"
    )


def _write_token(building: Path, final: Path, label: str, pin_file: Path | None) -> Path:
    """Make the token under `building`, set up to be found under `final`; returns the module's path."""
    module = find_softhsm_module()
    user_pin = PinSource(file=pin_file).read() if pin_file else Secret(secrets.token_hex(16))
    so_pin = Secret(secrets.token_hex(16))
    create_softhsm_token(building, label, user_pin, so_pin, module=module)
    if not pin_file:
        _write(building / "user.pin", user_pin.reveal() + "\n")
    _write(building / "so.pin", so_pin.reveal() + "\n")
    # SoftHSM knows no relative paths, and the folder is about to move.
    configuration = building / "softhsm2.conf"
    _write(configuration, configuration.read_text("utf-8").replace(str(building.resolve()), str(final)))
    return module


def _rendered(name: str, values: Mapping[str, str]) -> str:
    return Template(resources.files("hsmsigner.templates").joinpath(name).read_text("utf-8")).substitute(values)


def _write(path: Path, content: str | bytes) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content.encode() if isinstance(content, str) else content)
