"""Settings of one appliance: `hsmsigner.yaml`, read once at start. Unknown keys are refused, not ignored."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import quote, unquote

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from hsmsigner.errors import ConfigurationError

# What follows is a path in which SQLAlchemy undoes percent-encoding; without it, # and ? would end the path.
_SQLITE = "sqlite:///"
_LAST_PORT = 65_535
# What may come in one call must fit into an empty queue, or it would be told to come again for ever.
_LARGEST_BATCH = 1024
_LARGEST_CALL_BYTES = 8 * 2**20


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Secret:
    """A secret in memory that does not print itself; call `reveal()` at the moment of use."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """Give the secret out."""
        return self._value

    def __repr__(self) -> str:
        return "Secret(hidden)"

    __str__ = __repr__


class PinSource(_Section):
    """Where the user PIN is read from: exactly one of a file, a systemd credential, an environment variable."""

    file: Path | None = None
    credential: str | None = None
    env: str | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> PinSource:
        if sum(value is not None for value in (self.file, self.credential, self.env)) != 1:
            raise ValueError("give exactly one of file, credential, env")
        return self

    def read(self) -> Secret:
        """Read the PIN; only the token worker calls this.

        Raises:
            ConfigurationError: when the source is missing, unreadable or empty.
        """
        if self.env is not None:
            pin = os.environ.get(self.env, "")
            where = f"environment variable {self.env}"
        else:
            path = self.file or Path(os.environ.get("CREDENTIALS_DIRECTORY", "/nonexistent")) / str(self.credential)
            where = f"PIN file {path}" if self.file else f"systemd credential {self.credential}"
            try:
                pin = path.read_text("utf-8").rstrip("\r\n")
            except (OSError, UnicodeDecodeError) as error:
                raise ConfigurationError(
                    f"{where} cannot be read by user {os.getuid()} ({type(error).__name__})"
                ) from error
        if not pin:
            raise ConfigurationError(f"{where} is empty; put the token's user PIN there")
        return Secret(pin)


class TokenSettings(_Section):
    """One PKCS#11 token and the worker process in front of it."""

    label: Annotated[str, Field(min_length=1, max_length=32)]
    module: Path
    pin: PinSource
    # Narrows the choice when two tokens carry one label.
    serial: str | None = None
    # Set in the worker's environment before the module is loaded, as in SOFTHSM2_CONF.
    environment: dict[str, str] = {}
    protection_level: Literal["SOFTWARE_TOKEN", "HARDWARE"] = "SOFTWARE_TOKEN"
    # Pooled sessions and threads; devices have few sessions, so this is never derived from token info.
    threads: Annotated[int, Field(ge=1, le=64)] = 2
    # A PKCS#11 call that takes longer costs the worker its life; the supervisor starts another.
    call_timeout_s: Annotated[float, Field(gt=0, le=300)] = 10.0


class TlsSettings(_Section):
    """The server's certificate, and who may issue clients'. Files are read again when they change."""

    certificate: Path
    private_key: Path
    client_ca: Path
    # SHA-256 fingerprints of client certificates, hex, one per line; refused at the next call. Optional.
    revoked: Path | None = None


class LimitSettings(_Section):
    """Bounds on what clients may send and on what may wait."""

    message_bytes: Annotated[int, Field(ge=1, le=64 * 2**20)] = 2**20
    # Requests waiting for a decision; beyond it RESOURCE_EXHAUSTED at once.
    queue: Annotated[int, Field(ge=_LARGEST_BATCH, le=100_000)] = 4096
    # Bytes of messages waiting; beyond it the same.
    queue_bytes: Annotated[int, Field(ge=_LARGEST_CALL_BYTES)] = 64 * 2**20
    # How long the result of a request_id is kept.
    request_retention_s: Annotated[int, Field(ge=60, le=400 * 86400)] = 86_400
    # How long SIGTERM waits for what is under way.
    stop_grace_s: Annotated[float, Field(gt=0, le=300)] = 20.0

    @model_validator(mode="after")
    def _largest_message_can_wait(self) -> LimitSettings:
        if self.queue_bytes < self.message_bytes:
            raise ValueError("queue_bytes is smaller than message_bytes; the largest messages could never be signed")
        return self


class KeySettings(_Section):
    """Care for keys."""

    # A version is destroyed by schedule only after its time was seen past for this long, whatever the clock says.
    destruction_grace_s: Annotated[float, Field(ge=0, le=30 * 86400)] = 3600.0


class LogSettings(_Section):
    """Operational log: JSON lines on stderr. It never holds messages or PINs; it is not the audit log."""

    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"


class WitnessSettings(_Section):
    """Somebody else who sees every checkpoint and cosigns those that extend what it saw before (C2SP tlog-witness)."""

    # signed-note verification key of type 0x04: name+id+base64.
    vkey: Annotated[str, Field(pattern=r"^[^\s+]+\+[0-9a-f]{8}\+[A-Za-z0-9+/=]+$", max_length=400)]
    # Prefix of the protocol's URLs; add-checkpoint is appended.
    url: Annotated[str, Field(pattern=r"^https?://[^\s]+$", max_length=400)]


class AuditSettings(_Section):
    """The audit log: its name, its checkpoints, and who else is shown them (docs/audit.md)."""

    # Unique name of this log, a URL without scheme; never changed, since every checkpoint begins with it.
    origin: Annotated[str, Field(pattern=r"^[^\s+]+$", max_length=200)] = "hsmsigner.local/log"
    # A checkpoint after so many records or so long, whichever comes first; none while the log does not grow.
    checkpoint_records: Annotated[int, Field(ge=1, le=1_000_000)] = 10_000
    checkpoint_interval_s: Annotated[float, Field(ge=0.1, le=86_400)] = 10.0
    # How often the token is told to remember the newest checkpoint (a write to the device's memory).
    remember_interval_s: Annotated[float, Field(ge=0.1, le=86_400)] = 60.0
    witnesses: Annotated[tuple[WitnessSettings, ...], Field(max_length=16)] = ()
    # So many of the witnesses must have cosigned for a checkpoint to count as witnessed.
    quorum: Annotated[int, Field(ge=0, le=16)] = 0
    # What happens while no checkpoint was witnessed for witness_patience_s although the log grew: `serve` goes on
    # signing, `stop` refuses with AUDIT_UNAVAILABLE.
    without_quorum: Literal["serve", "stop"] = "serve"
    witness_patience_s: Annotated[float, Field(ge=1, le=86_400)] = 300.0
    # Folders (file:///path) or HTTP endpoints (PUT) that get every checkpoint.
    push: Annotated[tuple[Annotated[str, Field(pattern=r"^(file|https?)://[^\s]+$")], ...], Field(max_length=8)] = ()

    @model_validator(mode="after")
    def _quorum_can_be_met(self) -> AuditSettings:
        if self.quorum > len(self.witnesses):
            raise ValueError("quorum is larger than the number of witnesses")
        if self.without_quorum == "stop" and not self.quorum:
            raise ValueError("without_quorum: stop needs a quorum of at least 1")
        return self


def _has_port(listen: str) -> str:
    if int(listen.rpartition(":")[2]) > _LAST_PORT:
        raise ValueError(f"the port must be 0 to {_LAST_PORT}")
    return listen


def _is_cpu(wanted: str | int) -> str | int:
    if wanted not in ("auto", "any") and not (isinstance(wanted, int) and wanted >= 0):
        raise ValueError("must be auto, any, or the number of a CPU")
    return wanted


class Settings(_Section):
    """The whole of `hsmsigner.yaml`. Relative paths are relative to the folder the file lies in."""

    # Store, sockets, lock; one appliance per folder.
    state_dir: Path = Path()
    # host:port; port 0 takes a free one.
    listen: Annotated[
        str, Field(pattern=r"^(\[[0-9a-fA-F:]+\]|[A-Za-z0-9.-]+):[0-9]{1,5}$"), AfterValidator(_has_port)
    ] = "127.0.0.1:8443"
    tls: TlsSettings
    token: TokenSettings
    # Where SQLite keeps the store, as in sqlite:////srv/store.sqlite3; empty means in state_dir.
    store: Annotated[str, Field(pattern=r"^(sqlite:////.+)?$")] = ""
    # Published as revision 1 when the store has none yet.
    policy: Path
    limits: LimitSettings = LimitSettings()
    keys: KeySettings = KeySettings()
    log: LogSettings = LogSettings()
    audit: AuditSettings = AuditSettings()
    reflection: bool = False
    # The one CPU that the frontend's threads share: a number, auto for one of those allowed, or any (process.py).
    frontend_cpu: Annotated[str | int, AfterValidator(_is_cpu)] = "auto"

    @property
    def store_url(self) -> str:
        """SQLAlchemy URL of the store."""
        return self.store or _SQLITE + quote(str(self.state_dir / "store.sqlite3"))

    @property
    def store_file(self) -> Path:
        """The store's file."""
        return Path(unquote(self.store_url.removeprefix(_SQLITE).partition("?")[0]))

    @property
    def run_dir(self) -> Path:
        """Sockets, lock and address files of the running processes."""
        return self.state_dir / "run"

    @property
    def token_socket(self) -> Path:
        """Unix socket of the token worker."""
        return self.run_dir / "token.sock"

    @property
    def address_file(self) -> Path:
        """Where the frontend writes the host:port it listens on, once it does."""
        return self.run_dir / "frontend.address"


def load_settings(path: Path) -> Settings:
    """Read and check `hsmsigner.yaml`.

    Raises:
        ConfigurationError: unreadable, not YAML, or not what the settings allow; names each field at fault.
    """
    try:
        raw = yaml.safe_load(path.read_text("utf-8"))
    except OSError as error:
        raise ConfigurationError(f"cannot read {path}: {error.strerror}; `hsmsigner init DIR` makes one") from error
    # PyYAML lets through what odd dates and deep nesting raise.
    except (yaml.YAMLError, ValueError, RecursionError, OverflowError) as error:
        raise ConfigurationError(f"{path} is not valid YAML: {error}") from error
    try:
        settings = Settings.model_validate(raw if raw is not None else {})
    except ValidationError as error:
        faults = "\n".join(
            f"  {'.'.join(map(str, fault['loc'])) or '(document)'}: {fault['msg']}" for fault in error.errors()
        )
        raise ConfigurationError(f"{path} is not a valid configuration:\n{faults}") from error
    return _absolute(settings, path.resolve().parent)


def _absolute(settings: Settings, base: Path) -> Settings:
    tls, token, pin = settings.tls, settings.token, settings.token.pin
    new_tls = {
        name: base / value
        for name in ("certificate", "private_key", "client_ca", "revoked")
        if (value := getattr(tls, name)) is not None
    }
    new_pin = pin.model_copy(update={"file": base / pin.file}) if pin.file else pin
    # A bare module name (no slash) is left to the dynamic loader's search path.
    module = base / token.module if "/" in str(token.module) else token.module
    environment = {name: value.replace("${CONFIG_DIR}", str(base)) for name, value in token.environment.items()}
    return settings.model_copy(
        update={
            "state_dir": base / settings.state_dir,
            "policy": base / settings.policy,
            "tls": tls.model_copy(update=new_tls),
            "token": token.model_copy(update={"pin": new_pin, "module": module, "environment": environment}),
        }
    )
