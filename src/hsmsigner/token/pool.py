"""The worker's threads: each owns one session and takes jobs from one queue. A watchdog cuts calls that hang."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from threading import Event, Thread
from typing import Self

from hsmsigner.process import EXIT_RESTART
from hsmsigner.token.sessions import TokenSession

_LOGGER = logging.getLogger(__name__)

_LONGEST_POLL_S = 0.25


class Watch:
    """From when a thread's call is timed, by `time.monotonic`; 0.0 between calls. Written by that thread only."""

    __slots__ = ("started",)

    def __init__(self) -> None:
        self.started = 0.0

    def __enter__(self) -> Self:
        self.started = time.monotonic()
        return self

    def grant(self, extra_s: float) -> None:
        """Allow the present call so much more than the usual time."""
        self.started = time.monotonic() + extra_s

    def __exit__(self, *_exception: object) -> None:
        self.started = 0.0


class Watchdog:
    """Ends the process when a watched call takes longer than `timeout_s`. A hung C call cannot be ended otherwise."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._watches: list[Watch] = []
        self._stopped = Event()

    def watch(self) -> Watch:
        """Give out a watch; one per thread."""
        watch = Watch()
        self._watches.append(watch)
        return watch

    def start(self) -> None:
        """Begin to look; call before the module is loaded, as loading can hang too."""
        Thread(target=self._run, name="watchdog", daemon=True).start()

    def stop(self) -> None:
        """Look no more."""
        self._stopped.set()

    def _run(self) -> None:
        while not self._stopped.wait(min(_LONGEST_POLL_S, self._timeout_s / 4)):
            now = time.monotonic()
            for watch in self._watches:
                started = watch.started
                if started and now - started > self._timeout_s:
                    _LOGGER.critical("a PKCS#11 call has not returned for %.1f s; the worker ends", now - started)
                    # Not sys.exit: it would wait for the hung thread, and module destructors could hang as well.
                    os._exit(EXIT_RESTART)


Job = Callable[[TokenSession, Watch], None]


class TokenPool:
    """Threads with one session each. All use of the token after the login happens here."""

    def __init__(self, sessions: Sequence[TokenSession], watchdog: Watchdog) -> None:
        self._queue: SimpleQueue[Job | None] = SimpleQueue()
        self._sessions = sessions
        self._threads = [
            Thread(target=self._run, args=(session, watchdog.watch()), name=f"token-{number}", daemon=True)
            for number, session in enumerate(sessions)
        ]

    @property
    def size(self) -> int:
        """Number of threads."""
        return len(self._threads)

    def start(self) -> None:
        """Start the threads."""
        for thread in self._threads:
            thread.start()

    def submit(self, job: Job) -> None:
        """Queue a job; the next free thread takes it. A job must not raise: that ends the process (`worker`)."""
        self._queue.put(job)

    def drain(self) -> None:
        """Let what is queued finish, end the threads, close their sessions. Only then may the module be finalised."""
        for _ in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            thread.join()
        for session in self._sessions:
            session.close()

    def _run(self, session: TokenSession, watch: Watch) -> None:
        while (job := self._queue.get()) is not None:
            with watch:
                job(session, watch)
