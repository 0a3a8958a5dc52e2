"""One request on its way, with everybody who waits for its answer."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, unique
from typing import Protocol

from hsmsigner.client.errors import OutcomeUnknown, SigningClientError, Unavailable
from hsmsigner.client.values import PreparedRequest, Signature


class Waiter(Protocol):
    """Whoever waits: an asyncio future of the multiplexer's loop, or a concurrent future of another thread."""

    def done(self) -> bool:
        """Whether it has its answer, or no longer wants one."""
        ...

    def set_result(self, result: Signature, /) -> None:
        """Give the signature."""
        ...

    def set_exception(self, exception: SigningClientError, /) -> None:
        """Give the error."""
        ...


@unique
class Place(Enum):
    """Where a request is; it is in exactly one place until it is answered."""

    QUEUE = "QUEUE"
    STREAM = "STREAM"
    PAUSE = "PAUSE"  # answered "not now"; a timer puts it back into the queue


@dataclass(slots=True, eq=False)
class Pending:
    """Mutable, and owned by the multiplexer's event loop; nothing else touches it.

    `waiters` are pairs of a waiter and its deadline (`time.monotonic()`, seconds). `sends` counts the streams it was
    written to; `refusals` how often it was told to come again.
    """

    request: PreparedRequest
    waiters: list[tuple[Waiter, float]]
    place: Place = Place.QUEUE
    sends: int = 0
    refusals: int = 0
    last_refusal: SigningClientError | None = field(default=None)

    @property
    def is_wanted(self) -> bool:
        """Whether anybody still waits."""
        return any(not waiter.done() for waiter, _ in self.waiters)

    @property
    def last_deadline(self) -> float:
        """When the last of the waiters gives up."""
        return max(deadline for _, deadline in self.waiters)

    def resolve(self, answer: Signature | SigningClientError) -> None:
        """Give everybody the answer."""
        for waiter, _ in self.waiters:
            give(waiter, answer)
        self.waiters.clear()

    def expire(self, now: float, last_break: str) -> None:
        """Tell those whose time is up how far it came."""
        expired = [(waiter, deadline) for waiter, deadline in self.waiters if deadline <= now]
        if expired:
            error = self.unfinished(last_break)
            for waiter, _ in expired:
                give(waiter, error)
            self.waiters = [pair for pair in self.waiters if pair not in expired]

    def unfinished(self, last_break: str) -> SigningClientError:
        """What to say to one who stops waiting now: only a request never sent certainly had no effect."""
        request_id = self.request.request_id
        because = f" (the connection's last error: {last_break})" if last_break else ""
        if self.place is not Place.STREAM and self.last_refusal is not None:
            return self.last_refusal
        if self.sends:
            return OutcomeUnknown(
                "NO_ANSWER_IN_TIME",
                f"no answer to {request_id} in time; send it again under the same request_id{because}",
            )
        return Unavailable("UNREACHABLE", f"the server could not be reached in time{because}")


def give(waiter: Waiter, answer: Signature | SigningClientError) -> None:
    """Give one waiter the answer, unless it stopped waiting (a cancelled task)."""
    if waiter.done():
        return
    if isinstance(answer, SigningClientError):
        waiter.set_exception(answer.copy())
    else:
        waiter.set_result(answer)
