"""What every process of the appliance does first: no core dumps, no debugger, and never outlive the supervisor."""

from __future__ import annotations

import ctypes
import os
import random
import resource
import signal

from hsmsigner.errors import ConfigurationError

_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4

# Exit codes between supervisor and children. EX_CONFIG of sysexits.h: a restart cannot cure it.
EXIT_CONFIGURATION = 78
EXIT_RESTART = 75

# gRPC has no setting for the lowest TLS version. Without a PSK, which nobody has, this suite can never be agreed on in
# TLS 1.2; the suites of TLS 1.3 are not touched by it. Must be in the environment before gRPC starts.
TLS13_ONLY = {"GRPC_SSL_CIPHER_SUITES": "ECDHE-PSK-CHACHA20-POLY1305"}

PARENT_VARIABLE = "HSMSIGNER_SUPERVISOR_PID"


def harden_process() -> None:
    """Core dumps and ptrace off: both would let a PIN or a message out of memory."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _prctl(_PR_SET_DUMPABLE, 0)


def allow_many_files() -> None:
    """Raise the limit of open files to what the system allows, so that idle connections alone cannot exhaust it."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def share_one_cpu(wanted: str | int) -> int | None:
    """Have this thread, and all that it starts, run on one CPU: a number, `auto` for any one of those allowed.

    Python runs one thread at a time. To hand its lock, and the little that a gRPC thread has to say, to another CPU
    costs a wake-up from there each time, which is more than that CPU gives. `any` leaves it to the system, as does a
    system that knows no such choice. Returns the CPU, None for any.

    Raises:
        ConfigurationError: the process may not use that CPU.
    """
    if wanted == "any" or not hasattr(os, "sched_setaffinity"):
        return None
    allowed = sorted(os.sched_getaffinity(0))
    # By chance, so that several appliances on one machine seldom meet.
    cpu = random.choice(allowed) if wanted == "auto" else int(wanted)  # noqa: S311 - no secret
    if cpu not in allowed:
        raise ConfigurationError(f"frontend_cpu: this process may not use CPU {cpu}; it may use {allowed}")
    os.sched_setaffinity(0, {cpu})
    return cpu


def die_with_supervisor() -> None:
    """Have the kernel end this process when the supervisor ends, however it ends.

    An orphaned token worker beside a new one would be two processes on one SoftHSM token, which breaks it.
    """
    # The supervisor says who it is: asked here, it may be dead already and our parent somebody else.
    parent = int(os.environ.get(PARENT_VARIABLE, os.getppid()))
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


def _prctl(option: int, value: int) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0) != 0:
        raise ConfigurationError(f"prctl({option}) failed: {os.strerror(ctypes.get_errno())}")
