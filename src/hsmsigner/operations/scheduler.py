"""What keys need without being asked: rotations that are due, the ends of overlaps, destructions.

Exactly one frontend at a time does it, the holder of a lease in the store. It keeps nothing in memory that matters:
what is due is worked out from the store every second (domain/rotation.py), and each step is conditional on what it
saw, so that a former holder who wakes up late does no harm.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import lru_cache

from hsmsigner.domain.certificate import chain_expire_time
from hsmsigner.domain.instant import MICROSECONDS_PER_SECOND, Instant
from hsmsigner.domain.key import Key, KeyName
from hsmsigner.domain.lifecycle import Verb
from hsmsigner.domain.principal import APPLIANCE
from hsmsigner.domain.rotation import (
    BeginRotation,
    Deactivate,
    Destroy,
    DueDestruction,
    PrimaryFacts,
    ScheduleDestroy,
    Step,
    due_destructions,
    next_step,
)
from hsmsigner.errors import Reason, SignerError
from hsmsigner.operations.governance import GovernanceCache
from hsmsigner.operations.grace import DestructionGrace
from hsmsigner.operations.key_changes import Cause, Change, KeyChanges
from hsmsigner.operations.lifecycle import Lifecycle, begin_destroying, change_within
from hsmsigner.operations.ports import TOKEN_ANSWERED, Store
from hsmsigner.operations.rotation import Rotations
from hsmsigner.operations.rotation_changes import planned_rotation

_log = logging.getLogger(__name__)

LEASE = "scheduler"
LEASE_US = 10 * MICROSECONDS_PER_SECOND
ROUND_EVERY_S = 1.0
# A key whose step failed is left alone for this long, doubled each time up to the longest.
_FIRST_PAUSE_S = 1.0
_LONGEST_PAUSE_S = 300.0
# Nothing was tried in vain while the token was away: what waits for it goes on soon after it is back. Not so when the
# token answered: to try again may be to have it opened afresh, which interrupts signing.
_LONGEST_PAUSE_FOR_TOKEN_S = 5.0
_MOST_AT_ONCE = 4
_OVER = Cause(APPLIANCE, "the overlap is over")
_OLD = Cause(APPLIANCE, "DEACTIVATED for as long as the rotation policy says")
_TIME_HAS_COME = Cause(APPLIANCE, "its time has come")


class Scheduler:
    """One frontend's candidate for the lease. `holder` is a name that no other process ever has."""

    def __init__(
        self,
        store: Store,
        governance: GovernanceCache,
        clock: Callable[[], Instant],
        rotations: Rotations,
        lifecycle: Lifecycle,
        *,
        holder: str,
        grace: DestructionGrace,
    ) -> None:
        self._clock = clock
        self._changes = KeyChanges(store, governance, clock)
        self._rotations = rotations
        self._lifecycle = lifecycle
        self._holder = holder
        self._grace = grace
        self._ripe: frozenset[DueDestruction] = frozenset()
        self._at_work: dict[KeyName, asyncio.Task[None]] = {}
        self._paused: dict[KeyName, tuple[float, float]] = {}
        self._room = asyncio.Semaphore(_MOST_AT_ONCE)

    async def run(self) -> None:
        """Look every second until cancelled."""
        try:
            while True:
                try:
                    await self.round()
                except SignerError as error:
                    _log.warning("the scheduler has to wait: %s", error.message)
                await asyncio.sleep(ROUND_EVERY_S)
        finally:
            for task in self._at_work.values():
                task.cancel()

    async def round(self) -> bool:
        """Start on whatever is due; returns whether this is the frontend that may.

        Raises:
            SignerError: AUDIT_UNAVAILABLE.
        """
        async with self._changes.begin() as change:
            if not change.transaction.leases.take(LEASE, self._holder, self._clock(), LEASE_US):
                return False
            counts = change.transaction.keys.signature_counts()
            keys = change.governance.keys.values()
            # By the machine's clock: after a jump that was set right, the time of the log stays ahead of it.
            now = self._clock()
            self._ripe = self._grace.observe(one for key in keys for one in due_destructions(key, now))
            facts = {key.name: primary_facts(key, counts.get(key.primary.name, 0)) for key in keys}
            due = [key.name for key in keys if next_step(key, change.now, facts[key.name], self._ripe) is not None]
        for name in due:
            if name not in self._at_work and not self._rotations.is_busy(name) and not self._is_paused(name):
                task = asyncio.create_task(self._keep(name))
                self._at_work[name] = task
                task.add_done_callback(lambda _task, name=name: self._at_work.pop(name, None))  # type: ignore[misc]
        return True

    async def settle(self) -> None:
        """Wait until everything that was started has ended."""
        while self._at_work:
            await asyncio.wait(self._at_work.values())

    async def take_step(self, name: KeyName) -> bool:
        """Do the one thing that is due first for a key; returns whether there was one.

        Raises:
            SignerError: what stopped it; what was done stays done.
        """
        async with self._changes.begin() as change:
            key = change.key(name)
            ripe = {one for one in self._ripe if one[1] <= self._clock()}
            step = next_step(key, change.now, primary_facts(key), ripe)
            self._take_within(change, key, step)
        match step:
            case None:
                return False
            case Destroy(version):
                await self._lifecycle.finish_destroying(version.name, _TIME_HAS_COME)
            case Deactivate() | ScheduleDestroy():
                pass
            case _:
                await self._rotations.advance(name)
        return True

    def _take_within(self, change: Change, key: Key, step: Step | None) -> None:
        """What of a step is done by writing."""
        match step:
            case Deactivate(version):
                change_within(change, Verb.DEACTIVATE, key, version, _OVER)
            case ScheduleDestroy(version, destroy_time):
                change_within(change, Verb.SCHEDULE_DESTROY, key, version, _OLD, destroy_time=destroy_time)
            case Destroy(version):
                begin_destroying(change, version, _TIME_HAS_COME)
            case BeginRotation(due):
                policy, cause = key.rotation_policy, Cause(APPLIANCE, due)
                rotation = planned_rotation(
                    change,
                    key,
                    cause,
                    activate_time=Instant(change.now + policy.publish_lead_us),
                    overlap_us=policy.overlap_us,
                    publish_lead_us=policy.publish_lead_us,
                )
                self._rotations.begin_within(change, key, rotation, cause)
            case _:
                pass

    async def _keep(self, name: KeyName) -> None:
        try:
            async with self._room:
                while await self.take_step(name):
                    pass
            self._paused.pop(name, None)
        except SignerError as error:
            if error.reason is not Reason.ETAG_MISMATCH:
                is_answer = error.metadata.items() >= TOKEN_ANSWERED.items()
                is_away = error.reason is Reason.TOKEN_UNAVAILABLE and not is_answer
                self._pause(name, _LONGEST_PAUSE_FOR_TOKEN_S if is_away else _LONGEST_PAUSE_S)
            _log.warning("%s has to wait: %s", name, error.message)
        except Exception:  # noqa: BLE001 - as the comment says
            # One key must not stop the others; the next round sees it again.
            self._pause(name, _LONGEST_PAUSE_S)
            _log.exception("keeping %s failed", name)

    def _pause(self, name: KeyName, longest_s: float) -> None:
        _, last_s = self._paused.get(name, (0.0, _FIRST_PAUSE_S / 2))
        pause_s = min(2 * last_s, longest_s)
        self._paused[name] = asyncio.get_running_loop().time() + pause_s, pause_s

    def _is_paused(self, name: KeyName) -> bool:
        return asyncio.get_running_loop().time() < self._paused.get(name, (0.0, 0.0))[0]


def primary_facts(key: Key, signature_count: int | None = None) -> PrimaryFacts:
    """What the rotation of a key depends on besides the key; None takes the count as it was loaded."""
    chain = key.primary.certificate_chain
    count = key.primary.signature_count if signature_count is None else signature_count
    return PrimaryFacts(count, _expire_time(chain) if chain else None)


# Parsing a chain every second for every key would be a waste.
_expire_time = lru_cache(maxsize=4096)(chain_expire_time)
