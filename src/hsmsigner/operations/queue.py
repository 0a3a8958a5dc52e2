"""The bounded queue in front of the commit cycle: what does not fit is refused at once, before any work."""

from __future__ import annotations

from collections import deque

from hsmsigner.errors import Reason, SignerError
from hsmsigner.operations.jobs import Group

_RETRY_S = 0.5


class RequestQueue:
    """Groups in the order they came, bounded by their number of jobs and their bytes."""

    def __init__(self, most_jobs: int, most_bytes: int) -> None:
        self._most_jobs = most_jobs
        self._most_bytes = most_bytes
        self._groups: deque[Group] = deque()
        self._jobs = 0
        self._bytes = 0

    def __len__(self) -> int:
        """How many jobs wait."""
        return self._jobs

    def add(self, group: Group) -> None:
        """Put a group at the end.

        Raises:
            SignerError: QUEUE_FULL.
        """
        count = len(group.jobs)
        if self._jobs + count > self._most_jobs or self._bytes + group.size_bytes > self._most_bytes:
            message = "more requests are waiting than can be served soon; retry with the same request_id"
            raise SignerError(Reason.QUEUE_FULL, message, retry_after_s=_RETRY_S)
        self._groups.append(group)
        self._jobs += count
        self._bytes += group.size_bytes

    def take(self, room: int) -> list[Group]:
        """Take the oldest groups, up to `room` jobs; one larger than that is taken alone, since it cannot be cut."""
        taken: list[Group] = []
        while room > 0 and self._groups and (not taken or len(self._groups[0].jobs) <= room):
            group = self._groups.popleft()
            room -= len(group.jobs)
            self._jobs -= len(group.jobs)
            self._bytes -= group.size_bytes
            taken.append(group)
        return taken

    def take_all(self) -> list[Group]:
        """Empty the queue."""
        taken = list(self._groups)
        self._groups.clear()
        self._jobs = self._bytes = 0
        return taken


def still_wanted(groups: list[Group], now_s: float) -> list[Group]:
    """Leave out groups whose caller has gone, and refuse as a whole those whose deadline has passed."""
    return [group for group in groups if not (group.is_abandoned() or _refuse_late(group, now_s))]


def _refuse_late(group: Group, now_s: float) -> bool:
    is_late = any(job.deadline_s is not None and job.deadline_s <= now_s for job in group.jobs)
    if is_late:
        message = "the deadline passed while the request waited; nothing was counted or signed"
        for job in group.jobs:
            job.resolve(SignerError(Reason.DEADLINE_PASSED, message))
    return is_late
