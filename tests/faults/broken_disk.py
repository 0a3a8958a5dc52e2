"""Faults of a disk as the kernel reports them: chosen system calls of one thread fail, without help from outside."""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import resource
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from hsmsigner.store.unit_of_work import SqlStore

_CALLS = {
    "x86_64": {"fsync": 74, "fdatasync": 75, "pwrite64": 18},
    "aarch64": {"fsync": 82, "fdatasync": 83, "pwrite64": 68},
}
_PR_SET_SECCOMP = 22
_PR_SET_NO_NEW_PRIVS = 38
_SECCOMP_MODE_FILTER = 2
# Classic BPF (linux/bpf_common.h, linux/seccomp.h): load the call's number, jump if equal, return.
_LOAD, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x15, 0x06
_ALLOW, _FAIL = 0x7FFF0000, 0x00050000


class _Instruction(ctypes.Structure):
    _fields_ = (("code", ctypes.c_uint16), ("yes", ctypes.c_uint8), ("no", ctypes.c_uint8), ("k", ctypes.c_uint32))


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_uint16), ("instructions", ctypes.POINTER(_Instruction)))


def can_break_calls() -> bool:
    return platform.machine() in _CALLS


def break_calls(names: tuple[str, ...], error: int) -> None:
    """Have these system calls of this thread fail from now on, for good."""
    numbers = [_CALLS[platform.machine()][name] for name in names]
    tests = [_Instruction(_JUMP_IF_EQUAL, len(numbers) - at, 0, number) for at, number in enumerate(numbers)]
    code = [_Instruction(_LOAD, 0, 0, 0), *tests, _Instruction(_RETURN, 0, 0, _ALLOW)]
    code.append(_Instruction(_RETURN, 0, 0, _FAIL | error))
    program = _Program(len(code), (_Instruction * len(code))(*code))
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    assert prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
    assert prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0) == 0, os.strerror(
        ctypes.get_errno()
    )


@contextmanager
def broken_disk(store: SqlStore, names: tuple[str, ...], error: int = errno.EIO) -> Iterator[None]:
    """What the store commits and opens meets this fault, until the block ends."""
    broken, store._commit_thread = ThreadPoolExecutor(1), ThreadPoolExecutor(1)
    broken.submit(break_calls, names, error).result()
    broken, store._commit_thread = store._commit_thread, broken
    try:
        yield
    finally:
        broken, store._commit_thread = store._commit_thread, broken
        broken.shutdown()


@contextmanager
def files_limited_to(size: int) -> Iterator[None]:
    """No file of this process grows beyond this size: EFBIG, as on a file system at its end."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
