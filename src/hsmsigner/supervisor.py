"""`hsmsigner serve`: starts the token worker and the frontend, watches them, restarts them, and stops them in order."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hsmsigner.config import Settings, load_settings
from hsmsigner.process import EXIT_CONFIGURATION, PARENT_VARIABLE, TLS13_ONLY, harden_process
from hsmsigner.state_lock import take_lock
from hsmsigner.telemetry import configure_logging

_log = logging.getLogger(__name__)

_FIRST_DELAY_S = 0.1
_LONGEST_DELAY_S = 10.0
# A process that ran this long is taken to be well: its next restart is quick again.
_STEADY_S = 30.0
_KILL_MARGIN_S = 5.0


def run_supervisor(config_path: Path, accepted_rollback: str = "") -> int:
    """Run the appliance in the foreground until SIGTERM or SIGINT; returns an exit code (0, or 78 for a set-up fault).

    `accepted_rollback` is why the first frontend may go on with a log that is not the one the token remembers.

    Raises:
        ConfigurationError: the configuration is wrong, or another appliance runs on this state folder.
    """
    settings = load_settings(config_path)
    configure_logging(settings.log.level, "supervisor")
    harden_process()
    lock = take_lock(settings)
    try:
        settings.address_file.unlink(missing_ok=True)
        return asyncio.run(_Supervisor(settings, config_path.resolve(), lock, accepted_rollback).run())
    finally:
        os.close(lock)


@dataclass(frozen=True, slots=True)
class _Role:
    name: str
    environment: Mapping[str, str]
    stop_within_s: float
    # Of the first process alone: what was accepted once is not accepted for ever.
    first_arguments: tuple[str, ...] = ()


class _Supervisor:
    def __init__(self, settings: Settings, config_path: Path, lock: int, accepted_rollback: str) -> None:
        self._config_path = config_path
        self._lock = lock
        self._stopping = asyncio.Event()
        self._exit_code = 0
        environment = dict(os.environ) | {PARENT_VARIABLE: str(os.getpid())}
        without_pin = {name: value for name, value in environment.items() if name != settings.token.pin.env}
        grace_s = settings.limits.stop_grace_s + _KILL_MARGIN_S
        # In the order of starting; stopped the other way round, so that the frontend's last signatures find a worker.
        self._roles = (
            _Role("token-worker", environment, settings.token.call_timeout_s + _KILL_MARGIN_S),
            _Role("frontend", without_pin | TLS13_ONLY, grace_s, _acceptance(accepted_rollback)),
        )

    async def run(self) -> int:
        """Keep every role running until told to stop, or until one cannot run at all."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)
        stops = {role.name: asyncio.Event() for role in self._roles}
        keepers = {role.name: asyncio.create_task(self._keep(role, stops[role.name])) for role in self._roles}
        await self._stopping.wait()
        _log.info("stopping")
        for role in reversed(self._roles):
            stops[role.name].set()
            await keepers[role.name]
        return self._exit_code

    async def _keep(self, role: _Role, stop: asyncio.Event) -> None:
        delay_s, arguments = _FIRST_DELAY_S, role.first_arguments
        while not stop.is_set():
            started = asyncio.get_running_loop().time()
            process = await self._spawn(role, arguments)
            arguments = ()
            exited = asyncio.create_task(process.wait())
            stopped = asyncio.create_task(stop.wait())
            await asyncio.wait({exited, stopped}, return_when=asyncio.FIRST_COMPLETED)
            stopped.cancel()
            if not exited.done():
                await _stop(process, role.stop_within_s)
                return
            _log.warning("process ended", extra={"role": role.name, "exit_code": process.returncode})
            if process.returncode == EXIT_CONFIGURATION:
                _log.error("%s cannot run as it is set up; the appliance stops", role.name)
                self._exit_code = EXIT_CONFIGURATION
                self._stopping.set()
                return
            if asyncio.get_running_loop().time() - started > _STEADY_S:
                delay_s = _FIRST_DELAY_S
            await _sleep_unless(stop, delay_s)
            delay_s = min(delay_s * 2, _LONGEST_DELAY_S)

    async def _spawn(self, role: _Role, arguments: Sequence[str]) -> asyncio.subprocess.Process:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "hsmsigner.child",
            role.name,
            "--config",
            str(self._config_path),
            *arguments,
            env=role.environment,
            stdin=asyncio.subprocess.DEVNULL,
            pass_fds=(self._lock,),
            # A session of its own: Ctrl-C at the terminal reaches the supervisor alone, which stops them in order.
            start_new_session=True,
        )
        _log.info("process started", extra={"role": role.name, "pid": process.pid})
        return process


def _acceptance(reason: str) -> tuple[str, ...]:
    return ("--accept-rollback", reason) if reason else ()


async def _stop(process: asyncio.subprocess.Process, within_s: float) -> None:
    process.terminate()
    try:
        await asyncio.wait_for(process.wait(), within_s)
    except TimeoutError:
        _log.error("process did not stop in time and is killed", extra={"pid": process.pid})
        process.kill()
        await process.wait()


async def _sleep_unless(stop: asyncio.Event, delay_s: float) -> None:
    try:
        await asyncio.wait_for(stop.wait(), delay_s)
    except TimeoutError:
        return
