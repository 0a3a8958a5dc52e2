"""A SoftHSM2 token for development and tests: one folder with its configuration and exactly one token.

SoftHSM is initialised in a process of its own (this file run as a program), because a module can be initialised once
per process and the caller may want to load it later. The PINs go there through a pipe: `ps` shows command lines.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from pkcs11.constants import TokenFlag
from pkcs11.exceptions import PKCS11Error

from hsmsigner.config import Secret
from hsmsigner.errors import ConfigurationError
from hsmsigner.token.faults import TokenError

_KNOWN_PLACES = (
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib64/softhsm/libsofthsm2.so",
    "/usr/lib64/pkcs11/libsofthsm2.so",
    "/usr/local/lib/softhsm/libsofthsm2.so",
    "/opt/homebrew/lib/softhsm/libsofthsm2.so",
)
_LABEL_BYTES = 32
_SHORTEST_PIN, _LONGEST_PIN = 4, 255
_PATIENCE_S = 60.0


def find_softhsm_module() -> Path:
    """Find SoftHSM2's library where distributions put it.

    Raises:
        ConfigurationError: it is not installed, with what to install.
    """
    for place in _KNOWN_PLACES:
        if Path(place).is_file():
            return Path(place)
    raise ConfigurationError(
        "SoftHSM2 is not installed: install the package softhsm2 (Debian, Ubuntu) or softhsm (Fedora, Homebrew)"
    )


def create_softhsm_token(
    folder: Path, label: str, user_pin: Secret, so_pin: Secret, *, module: Path | None = None
) -> dict[str, str]:
    """Write `softhsm2.conf` and `tokens/` into a folder (0700) and initialise one token there.

    Called again for the same folder it adds a second token, with a serial of its own. Returns the environment in which
    the module finds the token, as in `token.environment`.

    Raises:
        ConfigurationError: SoftHSM2 is missing or refuses, or the label or the PIN is too long or too short.
    """
    module = module or find_softhsm_module()
    if not 1 <= len(label.encode("utf-8")) <= _LABEL_BYTES:
        raise ConfigurationError(f"the token label {label!r} must have 1 to {_LABEL_BYTES} bytes")
    if not _SHORTEST_PIN <= len(user_pin.reveal().encode("utf-8")) <= _LONGEST_PIN:
        raise ConfigurationError(f"the user PIN must have {_SHORTEST_PIN} to {_LONGEST_PIN} bytes for SoftHSM2")
    tokens = folder.resolve() / "tokens"
    for private in (folder, tokens):
        private.mkdir(mode=0o700, parents=True, exist_ok=True)
        private.chmod(0o700)
    configuration = tokens.parent / "softhsm2.conf"
    configuration.write_text(
        f"directories.tokendir = {tokens}\nobjectstore.backend = file\nlog.level = ERROR\nslots.removable = false\n",
        "utf-8",
    )
    configuration.chmod(0o600)
    environment = {"SOFTHSM2_CONF": str(configuration)}
    orders = {"module": str(module), "label": label, "user_pin": user_pin.reveal(), "so_pin": so_pin.reveal()}
    done = subprocess.run(
        [sys.executable, "-m", "hsmsigner.token.softhsm"],
        input=json.dumps(orders),
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=_PATIENCE_S,
        check=False,
    )
    if done.returncode != 0:
        raise ConfigurationError(f"SoftHSM2 could not initialise a token in {folder}: {done.stderr.strip()}")
    return environment


def _initialise(module_path: Path, label: str, user_pin: str, so_pin: str) -> None:
    # Here and not above: whoever only creates a token need not load the binding's C part.
    from hsmsigner.token.cryptoki import CKU_SO, handle_of  # noqa: PLC0415
    from hsmsigner.token.module import load_module  # noqa: PLC0415

    cryptoki, library = load_module(module_path)
    slot = next(slot for slot in library.get_slots() if not slot.get_token().flags & TokenFlag.TOKEN_INITIALIZED)
    cryptoki.init_token(slot.slot_id, so_pin, label)
    session = slot.get_token().open(rw=True)
    return_value = cryptoki.login(handle_of(session), CKU_SO, so_pin)
    if return_value:
        raise TokenError.from_return_value("C_Login", return_value)
    session.init_pin(user_pin)
    session.close()
    cryptoki.finalize()


def _main() -> int:
    orders = json.load(sys.stdin)
    try:
        _initialise(Path(orders["module"]), orders["label"], orders["user_pin"], orders["so_pin"])
    except (ConfigurationError, TokenError, PKCS11Error) as error:
        sys.stderr.write(f"{type(error).__name__} {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(_main())
