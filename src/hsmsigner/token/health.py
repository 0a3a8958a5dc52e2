"""When this worker process must make room for a fresh one. Ending is how we re-initialise: it always works."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path
from threading import Lock

from hsmsigner.token.faults import SignFailedError, TokenError

_LOGGER = logging.getLogger(__name__)

# A process this young has just opened the token: what it does not find is not there.
FRESH_S = 5.0
# How long a key that was not found is refused without looking, and the least time between two restarts for such keys.
MISSING_S = 60.0


class Health:
    """Shared by the worker's threads. `lost` is empty while the token may be used, else why not.

    SoftHSM goes on showing an empty token after its folder was away for a moment, so "not found" counts only in a fresh
    process; and one missing key must not restart the worker for ever. `note` is a file that tells the next process
    that it was started to look for a missing key. `on_lost` is called once, from any thread.
    """

    def __init__(self, note: Path, on_lost: Callable[[], None], clock: Callable[[], float] = time.monotonic) -> None:
        self.lost = ""
        self._note = note
        self._on_lost = on_lost
        self._clock = clock
        self._started = clock()
        self._lock = Lock()
        # Until when a CKA_ID is refused without looking.
        self._missing: dict[bytes, float] = {}
        self._was_started_for_missing = note.exists()
        note.unlink(missing_ok=True)

    @property
    def is_fresh(self) -> bool:
        """Whether the token was opened so recently that what it does not show is not there."""
        return self._clock() - self._started <= FRESH_S

    def is_missing(self, cka_id: bytes) -> bool:
        """Whether this key was looked for lately, in vain."""
        return self._clock() < self._missing.get(cka_id, 0.0)

    def report(self, fault: TokenError) -> None:
        """Take note of a failed call; ends this process when only a fresh one can help."""
        # A dying token says GENERAL_ERROR to everything, a healthy one to one bad call: one restart per FRESH_S.
        is_suspect = isinstance(fault, SignFailedError) and fault.is_suspect and not self.is_fresh
        if fault.is_lost or is_suspect:
            self.give_up(fault.cause)

    def report_missing(self, cka_id: bytes) -> None:
        """Take note of a key that was not found: remember it, or have a fresh process look."""
        window_s = MISSING_S if self._was_started_for_missing else FRESH_S
        if self._clock() - self._started <= window_s:
            with self._lock:
                self._missing[cka_id] = self._clock() + MISSING_S
            _LOGGER.error("the token has no key with CKA_ID %s; not looking again for %d s", cka_id.hex(), MISSING_S)
            return
        with self._lock:
            self._note.touch(mode=0o600)
        self.give_up(f"CKA_ID {cka_id.hex()} was not found; a fresh process must look")

    def give_up(self, cause: str) -> None:
        """Stop using the token; what is under way is answered, then the process ends."""
        with self._lock:
            if self.lost:
                return
            self.lost = cause
        _LOGGER.error("the token worker ends to open the token anew: %s", cause)
        self._on_lost()
