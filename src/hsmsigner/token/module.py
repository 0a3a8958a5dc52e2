"""The loaded PKCS#11 module: initialised for threads, one token chosen, logged in once, finalised at the end.

python-pkcs11 0.10 initialises modules as if there were one thread and then drops the GIL in every call, which crashes
SoftHSM2 under two threads within seconds. So initialising, finalising and logging in go through `cryptoki`.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path

from pkcs11 import _pkcs11
from pkcs11.constants import TokenFlag
from pkcs11.exceptions import PKCS11Error
from pkcs11.types import Session, Token

from hsmsigner.config import Secret, TokenSettings
from hsmsigner.errors import ConfigurationError
from hsmsigner.token.cryptoki import CKU_USER, Cryptoki, check_loadable, function_list, handle_of
from hsmsigner.token.faults import (
    CKR_NAMES,
    CKR_OK,
    CKR_USER_ALREADY_LOGGED_IN,
    TokenError,
    return_value_name,
)
from hsmsigner.token.mechanism import attribute_mapper, supported_algorithms

_PIN_FAULTS = {
    "PIN_INCORRECT": "is not the token's user PIN; correct it before the next start, tokens lock after a few tries",
    "PIN_INVALID": "has characters that the token does not take",
    "PIN_LEN_RANGE": "is too short or too long for the token",
    "PIN_EXPIRED": "has expired; set a new one with the token's own tool",
    "PIN_LOCKED": "is locked; the security officer must unlock it with the token's own tool",
    "USER_PIN_NOT_INITIALIZED": "is not set on the token; set it with the token's own tool",
}


class PinRefusedError(ConfigurationError):
    """The token refused the PIN. Never tried again by itself: that would lock the token."""


class _Library(_pkcs11.lib):
    """The binding's library, initialised and finalised through `cryptoki`, which calls the same function list."""

    def __init__(self, so: str) -> None:
        self.cryptoki = Cryptoki(function_list(Path(so), self))
        super().__init__(so)

    def initialize(self) -> None:
        """Initialise for many threads; the base class, which calls this, would do it for one."""
        self.cryptoki.initialize()


class TokenModule:
    """One module with one token of it. Build with `open_module`; `close` when no other thread is in a call."""

    def __init__(self, cryptoki: Cryptoki, library: _pkcs11.lib, token: Token) -> None:
        self.cryptoki = cryptoki
        self.token = token
        self._library = library
        self._anchor: Session | None = None
        self.description = f"{library.manufacturer_id} {library.library_description} {_version(library)}"
        self.label = token.label
        self.serial = token.serial.decode("utf-8", errors="replace")

    def login(self, pin: Secret) -> None:
        """Log the application in, once, on a session that does nothing else.

        Login belongs to the application, not to a session: the others see it, as long as this one is open.

        Raises:
            PinRefusedError: after exactly one try.
            TokenError: the token failed for another reason.
        """
        anchor = self.open_session()
        return_value = self.cryptoki.login(handle_of(anchor), CKU_USER, pin.reveal())
        if return_value in (CKR_OK, CKR_USER_ALREADY_LOGGED_IN):
            self._anchor = anchor
            return
        # A session left open after each failed login would use up a device that has sixteen.
        anchor.close()
        way_out = _PIN_FAULTS.get(CKR_NAMES.get(return_value, ""))
        if way_out is None:
            raise TokenError.from_return_value("C_Login", return_value)
        raise PinRefusedError(
            f"token {self.label!r} refused the login ({return_value_name(return_value)}): the configured PIN {way_out}"
        )

    def open_session(self) -> Session:
        """Open a session without PIN; it is logged in if the application is. Read-write, as some devices have no other.

        Raises:
            TokenError: the token gives none.
        """
        try:
            return self.token.open(rw=True, attribute_mapper=attribute_mapper())
        except PKCS11Error as error:
            raise TokenError.from_binding("C_OpenSession", error) from error

    def algorithms(self) -> list[str]:
        """Names of the algorithms whose mechanisms the token lists.

        Raises:
            TokenError: the token does not answer.
        """
        try:
            return supported_algorithms(self.token.slot.get_mechanisms())
        except PKCS11Error as error:
            raise TokenError.from_binding("C_GetMechanismList", error) from error

    def close(self) -> None:
        """Log out, close the anchor, finalise. Sessions of others must be closed and their threads ended.

        Raises:
            TokenError: the module refused; it is finalised as far as it lets itself.
        """
        try:
            if self._anchor is not None:
                self.cryptoki.logout(handle_of(self._anchor))
                self._anchor.close()
        except PKCS11Error as error:
            raise TokenError.from_binding("C_CloseSession", error) from error
        finally:
            self.cryptoki.finalize()


def open_module(settings: TokenSettings) -> TokenModule:
    """Load and initialise the module, and choose the token.

    Raises:
        ConfigurationError: the module does not load or initialise, cannot lock, or has not exactly one token that fits.
    """
    _set_environment(settings.environment)
    cryptoki, library = load_module(settings.module)
    if settings.threads > 1 and not cryptoki.is_thread_safe:
        raise ConfigurationError(f"{settings.module} cannot be used by several threads; set token.threads to 1")
    return TokenModule(cryptoki, library, _choose(_tokens(library), settings))


def _set_environment(environment: Mapping[str, str]) -> None:
    # Modules read it in C when they are loaded; os.environ passes it on with setenv.
    os.environ.update(environment)


def load_module(path: Path) -> tuple[Cryptoki, _pkcs11.lib]:
    """Load and initialise a module, through ctypes and through the binding: both see the one copy in this process.

    Raises:
        ConfigurationError: it does not load, or refuses.
    """
    check_loadable(path)
    try:
        library = _Library(str(path))
    except TokenError as error:
        raise ConfigurationError(
            f"the PKCS#11 module {path} refused to initialise ({error.cause}); "
            "check the module's own configuration, and the variables in token.environment"
        ) from error
    except PKCS11Error as error:
        raise ConfigurationError(f"the PKCS#11 module {path} cannot be used: {type(error).__name__}") from error
    return library.cryptoki, library


def _tokens(library: _pkcs11.lib) -> list[Token]:
    tokens = []
    try:
        slots = library.get_slots(token_present=True)
    except PKCS11Error as error:
        raise ConfigurationError(f"the module does not list its slots: {type(error).__name__}") from error
    for slot in slots:
        # A slot of somebody else's that fails must not hide ours.
        with contextlib.suppress(PKCS11Error):
            token = slot.get_token()
            if token.flags & TokenFlag.TOKEN_INITIALIZED:
                tokens.append(token)
    return tokens


def _choose(tokens: list[Token], settings: TokenSettings) -> Token:
    labelled = [token for token in tokens if token.label == settings.label]
    serials = sorted(token.serial.decode("utf-8", errors="replace") for token in labelled)
    if settings.serial is not None:
        fitting = [token for token in labelled if token.serial == settings.serial.encode("utf-8")]
    else:
        fitting = labelled
    match fitting:
        case [token]:
            return token
        case []:
            seen = ", ".join(sorted(repr(token.label) for token in tokens)) or "none"
            wanted = f"{settings.label!r}" + (f" with serial {settings.serial!r}" if settings.serial else "")
            more = f"; serials of {settings.label!r}: {', '.join(serials)}" if serials else ""
            raise ConfigurationError(f"no token {wanted}; tokens there are: {seen}{more}; check token.label")
        case _:
            raise ConfigurationError(
                f"{len(fitting)} tokens carry the label {settings.label!r} (serials {', '.join(serials)}); "
                "set token.serial to the one that is meant"
            )


def _version(library: _pkcs11.lib) -> str:
    major, minor = library.library_version
    return f"{major}.{minor}"
