"""What every process of the appliance does first: no core dumps, no debugger, and never outlive the supervisor."""

from __future__ import annotations

import ctypes
import os
import resource
import signal

from hsmsigner.errors import ConfigurationError

_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4

# Exit codes between supervisor and children. EX_CONFIG of sysexits.h: a restart cannot cure it.
EXIT_CONFIGURATION = 78
EXIT_RESTART = 75

PARENT_VARIABLE = "HSMSIGNER_SUPERVISOR_PID"


def harden_process() -> None:
    """Core dumps and ptrace off: both would let a PIN or a message out of memory."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _prctl(_PR_SET_DUMPABLE, 0)


def die_with_supervisor() -> None:
    """Have the kernel end this process when the supervisor ends, however it ends.

    An orphaned token worker beside a new one would be two processes on one SoftHSM token, which breaks it.
    """
    parent = os.environ.get(PARENT_VARIABLE)
    if parent is None:
        return
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    # The supervisor may have died before the line above.
    if os.getppid() != int(parent):
        os.kill(os.getpid(), signal.SIGKILL)


def _prctl(option: int, value: int) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0) != 0:
        raise ConfigurationError(f"prctl({option}) failed: {os.strerror(ctypes.get_errno())}")
