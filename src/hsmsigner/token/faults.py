"""What PKCS#11 calls can end in, sorted by what it means for us. CKR names go into logs, never to clients."""

from __future__ import annotations

import re

import pkcs11.exceptions as binding

# PKCS#11 v3.1 section 6.1; those worth naming in logs. Others are shown as numbers.
CKR_OK = 0x00
CKR_CANT_LOCK = 0x0A
CKR_USER_ALREADY_LOGGED_IN = 0x100
CKR_NAMES = {
    0x02: "HOST_MEMORY",
    0x03: "SLOT_ID_INVALID",
    0x05: "GENERAL_ERROR",
    0x06: "FUNCTION_FAILED",
    0x07: "ARGUMENTS_BAD",
    0x0A: "CANT_LOCK",
    0x1B: "ACTION_PROHIBITED",
    0x20: "DATA_INVALID",
    0x21: "DATA_LEN_RANGE",
    0x30: "DEVICE_ERROR",
    0x31: "DEVICE_MEMORY",
    0x32: "DEVICE_REMOVED",
    0x50: "FUNCTION_CANCELED",
    0x54: "FUNCTION_NOT_SUPPORTED",
    0x60: "KEY_HANDLE_INVALID",
    0x62: "KEY_SIZE_RANGE",
    0x63: "KEY_TYPE_INCONSISTENT",
    0x68: "KEY_FUNCTION_NOT_PERMITTED",
    0x70: "MECHANISM_INVALID",
    0x71: "MECHANISM_PARAM_INVALID",
    0x82: "OBJECT_HANDLE_INVALID",
    0x90: "OPERATION_ACTIVE",
    0x91: "OPERATION_NOT_INITIALIZED",
    0xA0: "PIN_INCORRECT",
    0xA1: "PIN_INVALID",
    0xA2: "PIN_LEN_RANGE",
    0xA3: "PIN_EXPIRED",
    0xA4: "PIN_LOCKED",
    0xB0: "SESSION_CLOSED",
    0xB1: "SESSION_COUNT",
    0xB3: "SESSION_HANDLE_INVALID",
    0xE0: "TOKEN_NOT_PRESENT",
    0xE1: "TOKEN_NOT_RECOGNIZED",
    0x100: "USER_ALREADY_LOGGED_IN",
    0x101: "USER_NOT_LOGGED_IN",
    0x102: "USER_PIN_NOT_INITIALIZED",
    0x140: "CURVE_NOT_SUPPORTED",
    0x150: "BUFFER_TOO_SMALL",
    0x190: "CRYPTOKI_NOT_INITIALIZED",
    0x191: "CRYPTOKI_ALREADY_INITIALIZED",
    0x200: "FUNCTION_REJECTED",
    0x203: "KEY_EXHAUSTED",
}

# The session, the login or the device is gone; only C_Finalize and C_Initialize bring them back.
LOST = frozenset({0x03, 0x30, 0x32, 0x60, 0x82, 0x90, 0xB0, 0xB3, 0xE0, 0xE1, 0x101, 0x190})
# Said by healthy tokens of one bad call, and by dying ones of every call.
SUSPECT = frozenset({0x02, 0x05, 0x06})
# Out of C_Sign: the token said no and made no signature. Any other code leaves it open.
REFUSED = frozenset(
    {0x03, 0x07, 0x1B, 0x20, 0x21, 0x54, 0x60, 0x62, 0x63, 0x68, 0x70, 0x71}
    | {0x82, 0x91, 0xA3, 0xA4, 0xB3, 0x101, 0x200, 0x203}
)

_LOST_CLASSES = (
    binding.DeviceError,
    binding.DeviceRemoved,
    binding.ObjectHandleInvalid,
    binding.KeyHandleInvalid,
    binding.OperationActive,
    binding.SessionClosed,
    binding.SessionHandleInvalid,
    binding.SlotIDInvalid,
    binding.TokenNotPresent,
    binding.TokenNotRecognised,
    binding.UserNotLoggedIn,
    # Out of C_Sign this can be one bad call; out of a search or a status question it is the token.
    binding.GeneralError,
)
_CODE_IN_TEXT = re.compile(r"0x([0-9a-fA-F]+)")


def return_value_name(return_value: int) -> str:
    """Name of a CKR code for the log, as in CKR_DEVICE_ERROR."""
    return f"CKR_{CKR_NAMES.get(return_value, hex(return_value))}"


class TokenError(Exception):
    """A PKCS#11 call failed. `is_lost`: the session or the token is gone, only a fresh process helps."""

    def __init__(self, cause: str, *, is_lost: bool) -> None:
        super().__init__(cause)
        self.cause = cause
        self.is_lost = is_lost

    @classmethod
    def from_return_value(cls, function: str, return_value: int) -> TokenError:
        """Sort a code that a function called through ctypes returned."""
        return cls(f"{function}: {return_value_name(return_value)}", is_lost=return_value in LOST)

    @classmethod
    def from_binding(cls, doing: str, error: binding.PKCS11Error) -> TokenError:
        """Sort an exception of python-pkcs11, which has no number; codes it cannot name stand in its text only."""
        match = _CODE_IN_TEXT.search(str(error)) if type(error) is binding.PKCS11Error else None
        if match is not None:
            return cls.from_return_value(doing, int(match[1], 16))
        is_lost = isinstance(error, _LOST_CLASSES) or "never see this" in str(error)
        return cls(f"{doing}: {type(error).__name__}", is_lost=is_lost)


class SignFailedError(TokenError):
    """One signature failed. `was_called`: C_Sign ran; `is_refused`: it ran and the token definitely made none."""

    def __init__(self, function: str, return_value: int, *, was_called: bool) -> None:
        super().__init__(f"{function}: {return_value_name(return_value)}", is_lost=return_value in LOST)
        self.was_called = was_called
        self.is_refused = was_called and return_value in REFUSED
        self.is_suspect = return_value in SUSPECT


class KeyMissingError(Exception):
    """The token shows no such private key. Until the token was opened anew this may be untrue."""


class KeyRefusedError(Exception):
    """The token has the key, but it is not the one meant or not protected as it must be; it is not used."""
