"""The few PKCS#11 functions called through ctypes, because python-pkcs11 does them in a way we cannot use.

C_Initialize: the binding declares one thread, and modules then crash under several. C_Login: a failed one leaks its
session, and closing a session that logged in logs all others out. C_SignInit and C_Sign: the binding does not tell
which of the two failed, and only the first proves that no signature exists; it also calls C_Sign twice.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pkcs11.types import Session

from hsmsigner.errors import ConfigurationError
from hsmsigner.token.faults import CKR_CANT_LOCK, CKR_OK, TokenError

CKU_SO = 0
CKU_USER = 1
_CKF_OS_LOCKING_OK = 0x2
# States of a session in which the user is logged in: read-only and read-write.
_CKS_USER_FUNCTIONS = (1, 3)

_ULONG = ctypes.c_ulong
_POINTER = ctypes.c_void_p
_BYTES = ctypes.c_char_p


class _InitializeArguments(ctypes.Structure):
    _fields_ = (
        ("create_mutex", _POINTER),
        ("destroy_mutex", _POINTER),
        ("lock_mutex", _POINTER),
        ("unlock_mutex", _POINTER),
        ("flags", _ULONG),
        ("reserved", _POINTER),
    )


class _SessionInfo(ctypes.Structure):
    _fields_ = (("slot", _ULONG), ("state", _ULONG), ("flags", _ULONG), ("device_error", _ULONG))


class _Mechanism(ctypes.Structure):
    _fields_ = (("mechanism", _ULONG), ("parameter", _POINTER), ("parameter_length", _ULONG))


class MechanismStructure:
    """A CK_MECHANISM in memory; modules only read it, so threads may share it. `address` is valid while this lives."""

    def __init__(self, mechanism: int, parameter: bytes) -> None:
        self._parameter = ctypes.create_string_buffer(parameter, len(parameter)) if parameter else None
        where = ctypes.addressof(self._parameter) if self._parameter is not None else None
        self._structure = _Mechanism(mechanism, where, len(parameter))
        self.address = ctypes.addressof(self._structure)


def handle_of(session: Session) -> int:
    """The session's CK_SESSION_HANDLE; the binding has it, and its type hints have not."""
    return int(session.handle)  # type: ignore[attr-defined]  # missing in pkcs11.types


@dataclass(frozen=True, slots=True)
class _Slot:
    """Where a function stands in CK_FUNCTION_LIST (PKCS#11 v2.40 and later agree), and what it takes."""

    index: int
    arguments: tuple[type, ...]


_FUNCTIONS = {
    "C_Initialize": _Slot(0, (_POINTER,)),
    "C_Finalize": _Slot(1, (_POINTER,)),
    "C_InitToken": _Slot(9, (_ULONG, _BYTES, _ULONG, _BYTES)),
    "C_GetSessionInfo": _Slot(15, (_ULONG, _POINTER)),
    "C_Login": _Slot(18, (_ULONG, _ULONG, _POINTER, _ULONG)),
    "C_Logout": _Slot(19, (_ULONG,)),
    "C_SignInit": _Slot(42, (_ULONG, _POINTER, _ULONG)),
    "C_Sign": _Slot(43, (_ULONG, _BYTES, _ULONG, _POINTER, _POINTER)),
}


def function_list(path: Path, binding: object) -> int:
    """Address of the CK_FUNCTION_LIST that the binding's library object `binding` calls through.

    Mostly a module has one list for all. p11-kit's modules make a new one per question, each with its own state and
    sessions; then the binding's own is taken from the first field of its object (HasFuncList in its _pkcs11.pyx), as
    nothing else gives it out.

    Raises:
        ConfigurationError: the file cannot be loaded or is no PKCS#11 module.
    """
    lists = [_ask_for_function_list(path) for _ in range(2)]
    if lists[0] == lists[1]:
        return lists[0]
    return int(ctypes.c_void_p.from_address(id(binding) + object.__basicsize__).value or 0)


def check_loadable(path: Path) -> None:
    """Load a module and let its absence or damage be told in plain words.

    Raises:
        ConfigurationError: the file cannot be loaded or is no PKCS#11 module.
    """
    _ask_for_function_list(path)


def _ask_for_function_list(path: Path) -> int:
    try:
        get_function_list = ctypes.CDLL(str(path)).C_GetFunctionList
    except OSError as error:
        raise ConfigurationError(
            f"the PKCS#11 module {path} cannot be loaded: {error}; set token.module to the token's library"
        ) from error
    except AttributeError as error:
        raise ConfigurationError(f"{path} is not a PKCS#11 module: it has no C_GetFunctionList") from error
    answer = ctypes.c_void_p()
    get_function_list.restype = _ULONG
    return_value = get_function_list(ctypes.byref(answer))
    if return_value != CKR_OK or not answer.value:
        raise ConfigurationError(f"{path} gives no function list; it may be a damaged PKCS#11 module")
    return answer.value


class Cryptoki:
    """One loaded module, by the address of its function list. Every call drops the GIL; return values are CKR codes."""

    def __init__(self, functions: int) -> None:
        self._functions = functions
        self.is_thread_safe = False
        self.sign_init = self._function("C_SignInit")
        self.sign = self._function("C_Sign")
        self._login = self._function("C_Login")

    def initialize(self) -> None:
        """Initialise the module for many threads; where it cannot lock, for one (`is_thread_safe` tells).

        Raises:
            TokenError: the module refused.
        """
        arguments = _InitializeArguments(flags=_CKF_OS_LOCKING_OK)
        initialize = self._function("C_Initialize")
        return_value = initialize(ctypes.addressof(arguments))
        self.is_thread_safe = return_value == CKR_OK
        if return_value == CKR_CANT_LOCK:
            return_value = initialize(None)
        self._check("C_Initialize", return_value)

    def finalize(self) -> None:
        """Finalise the module. No other thread may be in a call: modules crash then (facts 0.6).

        Raises:
            TokenError: the module refused.
        """
        self._check("C_Finalize", self._function("C_Finalize")(None))

    def login(self, session: int, user: int, pin: str) -> int:
        """Log in and give the CKR code back; the copy of the PIN made for the call is wiped."""
        encoded = pin.encode("utf-8")
        buffer = ctypes.create_string_buffer(encoded, len(encoded))
        try:
            return int(self._login(session, user, ctypes.addressof(buffer), len(encoded)))
        finally:
            ctypes.memset(buffer, 0, len(encoded))

    def logout(self, session: int) -> None:
        """Log the application out of the token, on all sessions.

        Raises:
            TokenError: the module refused.
        """
        self._check("C_Logout", self._function("C_Logout")(session))

    def init_token(self, slot: int, so_pin: str, label: str) -> None:
        """Initialise the token in a slot, erasing what it holds; `label` is at most 32 bytes.

        Raises:
            TokenError: the module refused.
        """
        pin = so_pin.encode("utf-8")
        padded = label.encode("utf-8").ljust(32)
        self._check("C_InitToken", self._function("C_InitToken")(slot, pin, len(pin), padded))

    def is_user_logged_in(self, session: int) -> bool:
        """Ask the module for the session's state.

        Raises:
            TokenError: the session or the token is not there.
        """
        info = _SessionInfo()
        self._check("C_GetSessionInfo", self._function("C_GetSessionInfo")(session, ctypes.addressof(info)))
        return info.state in _CKS_USER_FUNCTIONS

    def _function(self, name: str) -> Callable[..., int]:
        slot = _FUNCTIONS[name]
        # CK_VERSION comes first and is padded to the size of a pointer.
        table = ctypes.cast(self._functions + ctypes.sizeof(_POINTER), ctypes.POINTER(_POINTER))
        address = table[slot.index]
        if not address:
            raise ConfigurationError(f"the PKCS#11 module has no {name}")
        return ctypes.CFUNCTYPE(_ULONG, *slot.arguments)(address)

    @staticmethod
    def _check(function: str, return_value: int) -> None:
        if return_value != CKR_OK:
            raise TokenError.from_return_value(function, return_value)
