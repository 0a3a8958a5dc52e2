"""Standard output that says what went wrong with it: a full disk, a closed descriptor, a reader that has gone.

An OSError alone does not tell whether it was the output, and what is still buffered would fail once more, with a
traceback, when the interpreter ends.
"""

from __future__ import annotations

import errno
import io
import os
import sys


class OutputLostError(Exception):
    """What was to be printed cannot be; the text says why. `is_unwanted`: the reader has seen enough, as `head` has."""

    def __init__(self, error: OSError) -> None:
        super().__init__(f"cannot write the output: {error.strerror}")
        self.is_unwanted = error.errno == errno.EPIPE


class _GuardedOutput(io.TextIOWrapper):
    def write(self, text: str, /) -> int:
        try:
            return super().write(text)
        except OSError as error:
            raise _lost(error) from error

    def flush(self) -> None:
        try:
            super().flush()
        except OSError as error:
            raise _lost(error) from error


def guard_output() -> None:
    """From here on, whoever prints is told by OutputLostError when it cannot be written."""
    given = sys.stdout
    if given is None:
        # Closed by who started us. Who prints nothing need not care; who does fails as on any closed descriptor.
        unwritable = io.BufferedWriter(io.FileIO(os.open(os.devnull, os.O_RDONLY), "w"))
        sys.stdout = _GuardedOutput(unwritable, "utf-8", "backslashreplace")
    elif isinstance(given, io.TextIOWrapper):
        guarded = _GuardedOutput(given.buffer, given.encoding, given.errors)
        guarded.reconfigure(line_buffering=given.line_buffering, write_through=given.write_through)
        sys.stdout = guarded


def _lost(error: OSError) -> OutputLostError:
    # What is still buffered, and what others print on their way out, goes nowhere, and fails no more.
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
    return OutputLostError(error)
