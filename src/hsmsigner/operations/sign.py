"""Signing, as its callers see it: hand requests in, wait for answers.

The path of one request: here it becomes a job; `committer` queues it and turns (`Committer._turn` is the diagram, step
by step); `turn` decides it; the store makes decision, debit and record durable; the token signs and verifies; `landing`
records the outcome; the answer comes back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial

from msgspec import Struct

from hsmsigner.domain.signing import SigningRequest
from hsmsigner.errors import Reason, SignerError
from hsmsigner.operations.committer import Committer
from hsmsigner.operations.jobs import Answer, Group, Job, Signed
from hsmsigner.operations.ports import RequestKey

MAX_BATCH = 1024


class Asked(Struct, frozen=True, gc=False):
    """One request of a call. `validate_only` decides and does nothing else (AIP-163)."""

    request: SigningRequest
    validate_only: bool = False


class Signing:
    """The use cases behind Sign, BatchSign and StreamSign."""

    def __init__(self, committer: Committer) -> None:
        self._committer = committer

    async def sign(self, asked: Asked, deadline_s: float | None) -> Signed:
        """Sign one request; `deadline_s` is the event loop's time.

        A caller that goes away while the request waits takes it back. Once authorized, nothing takes it back: it is
        signed, recorded and kept for the retry.

        Raises:
            SignerError: why not; a refusal by the policy was recorded before.
        """
        answered: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

        def keep(answer: Answer) -> None:
            if not answered.done():
                answered.set_result(answer)

        self.submit([asked], [keep], deadline_s, is_abandoned=answered.cancelled)
        answer = await answered
        if isinstance(answer, SignerError):
            raise answer
        return answer

    async def sign_batch(
        self, batch: Sequence[Asked], deadline_s: float | None, *, all_or_nothing: bool
    ) -> list[Answer]:
        """Sign a batch; one answer per item, in order."""
        if not batch:
            return []
        finished: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        answers: dict[int, Answer] = {}

        def keep(index: int, answer: Answer) -> None:
            answers[index] = answer
            if len(answers) == len(batch) and not finished.done():
                finished.set_result(None)

        callbacks = [partial(keep, index) for index in range(len(batch))]
        self.submit(batch, callbacks, deadline_s, all_or_nothing=all_or_nothing, is_abandoned=finished.cancelled)
        await finished
        return [answers[index] for index in range(len(batch))]

    def submit(
        self,
        batch: Sequence[Asked],
        callbacks: Sequence[Callable[[Answer], None]],
        deadline_s: float | None,
        *,
        all_or_nothing: bool = False,
        is_abandoned: Callable[[], bool] = lambda: False,
    ) -> None:
        """Queue requests to be decided in order; each callback gets its request's answer, at once or later."""
        jobs = [
            Job(
                asked.request,
                RequestKey(asked.request.principal.text, asked.request.request_id),
                on_answer,
                deadline_s,
                asked.validate_only,
            )
            for asked, on_answer in zip(batch, callbacks, strict=True)
        ]
        try:
            size = sum(len(asked.request.body) for asked in batch)
            self._committer.submit(Group(jobs, all_or_nothing, size, is_abandoned))
        except SignerError as refused:
            for job in jobs:
                job.resolve(refused)


def check_distinct(request_ids: Sequence[str]) -> None:
    """See that a batch has different request ids: twins in one all-or-nothing batch would be counted once.

    Raises:
        SignerError: INVALID_FIELD.
    """
    seen = set()
    for index, request_id in enumerate(request_ids):
        if request_id.lower() in seen:
            field = f"requests[{index}].request_id"
            raise SignerError(
                Reason.INVALID_FIELD, f"{field}: is used by an earlier item of this batch too", field=field
            )
        seen.add(request_id.lower())
