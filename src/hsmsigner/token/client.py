"""The frontend's end of the worker's socket: the `Token` port on asyncio."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from pathlib import Path

from hsmsigner.domain.algorithm import SigningAlgorithm
from hsmsigner.domain.key import CkaId
from hsmsigner.errors import Reason, SignerError
from hsmsigner.operations.ports import (
    TOKEN_ANSWERED,
    SignOutcome,
    SignStatus,
    SignTask,
    TokenKeyPair,
    TokenStatus,
    TreeHead,
)
from hsmsigner.pb import token_pb2 as pb
from hsmsigner.token.connection import ClientConnection, NoAnswerError, NotSentError
from hsmsigner.token.protocol import encode_frame

_LOGGER = logging.getLogger(__name__)

_FIRST_DELAY_S = 0.02
_LONGEST_DELAY_S = 0.5
# A connection that lived this long was a good one: the next try comes at once.
_GOOD_CONNECTION_S = 1.0
_RETRY_AFTER_S = 1.0
_FIND_TRIES = 3
_SAY_AGAIN_S = 60.0
# Added to the deadline of `generate`; see service.GENERATE_S.
_GENERATE_S = 70.0

_STATUSES = {
    pb.SIGN_STATUS_SIGNED: SignStatus.SIGNED,
    pb.SIGN_STATUS_NOT_CALLED: SignStatus.NOT_CALLED,
    pb.SIGN_STATUS_REFUSED: SignStatus.REFUSED,
    pb.SIGN_STATUS_WRONG_SIGNATURE: SignStatus.WRONG_SIGNATURE,
}


class TokenClient:
    """One frontend's connection to the token worker; reconnects by itself. Used from one event loop.

    `deadline_s` bounds each call, queueing in the worker included (`generate` has longer); a hung token is cut earlier,
    by the worker's watchdog. `frame_limit` is that of `protocol.frame_limit`, in bytes.
    """

    def __init__(self, path: Path, *, deadline_s: float, frame_limit: int) -> None:
        self._path = path
        self._deadline_s = deadline_s
        self._frame_limit = frame_limit
        self._connection: ClientConnection | None = None
        self._is_connected = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None
        self._next_id = 0
        self._generating = asyncio.Lock()
        self.connections = 0
        # Faults that were written to the operational log lately, and when.
        self._said_s: dict[str, float] = {}

    @property
    def connected(self) -> bool:
        """Whether a worker is at the other end now."""
        return self._connection is not None and self._connection.is_open

    async def start(self) -> None:
        """Begin to connect, and go on for ever; does not wait for a worker."""
        self._keeper = asyncio.create_task(self._keep_connected(), name="token-client")

    async def wait_connected(self) -> None:
        """Wait until a worker is there."""
        await self._is_connected.wait()

    async def close(self) -> None:
        """Stop; calls under way end as if the connection were lost."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
        if self._connection is not None:
            self._connection.transport.close()

    async def sign(self, tasks: Sequence[SignTask]) -> list[SignOutcome]:
        """See `operations.ports.Token.sign`."""
        call = pb.WorkerCall()
        _fill_sign_call(call.sign, tasks)
        try:
            answer = await self._call(call)
        except NotSentError as error:
            return [SignOutcome(SignStatus.NOT_CALLED, cause=str(error))] * len(tasks)
        except NoAnswerError as error:
            return [SignOutcome(SignStatus.UNKNOWN, cause=str(error))] * len(tasks)
        outcomes = answer.sign.outcomes
        if len(outcomes) != len(tasks):
            return [SignOutcome(SignStatus.UNKNOWN, cause="the worker's answer does not fit the call")] * len(tasks)
        return [_outcome(outcome) for outcome in outcomes]

    async def generate(self, cka_id: CkaId, label: str, algorithm: SigningAlgorithm) -> TokenKeyPair:
        """See `operations.ports.Token.generate`."""
        call = pb.WorkerCall(generate=pb.GenerateCall(cka_id=cka_id, label=label, algorithm=algorithm.name))
        # One at a time: an RSA pair takes seconds, and on all threads at once it would hold up signing. The deadline is
        # longer than the worker's watchdog allows, so that its verdict comes first.
        async with self._generating:
            answer = await self._ask(call, self._deadline_s + _GENERATE_S)
        if answer.WhichOneof("answer") == "key_pair":
            return _key_pair(answer.key_pair)
        if answer.error.fault == pb.CALL_FAULT_ALGORITHM_UNSUPPORTED:
            there = ", ".join(sorted((await self.status()).algorithms))
            raise SignerError(
                Reason.ALGORITHM_NOT_SUPPORTED, f"the token has no {algorithm.name}; it has {there}", field="algorithm"
            )
        if answer.error.fault == pb.CALL_FAULT_KEY_NOT_PROTECTED:
            raise SignerError(
                Reason.KEY_NOT_PROTECTED, "the token made a key that could leave it; the key was destroyed again"
            )
        if answer.error.fault == pb.CALL_FAULT_KEY_REFUSED:
            _LOGGER.warning("the token refused generating the key: %s", answer.error.cause)
            raise SignerError(Reason.TOKEN_REFUSED, "the token makes no such pair: it is full, or the CKA_ID is taken")
        raise self._unavailable("generating the key", answer.error.cause, is_answer=True)

    async def find(self, cka_id: CkaId, algorithm: SigningAlgorithm, *, is_sure: bool = True) -> TokenKeyPair | None:
        """See `operations.ports.Token.find`."""
        find = pb.FindCall(cka_id=cka_id, algorithm=algorithm.name, is_unsure=not is_sure)
        answer = await self._ask_surely(pb.WorkerCall(find=find), "looking the key up")
        return _key_pair(answer.key_pair) if answer.WhichOneof("answer") == "key_pair" else None

    async def destroy(self, cka_id: CkaId, public_key: bytes, algorithm: SigningAlgorithm) -> None:
        """See `operations.ports.Token.destroy`."""
        destroy = pb.DestroyCall(cka_id=cka_id, public_key=public_key, algorithm=algorithm.name)
        await self._ask_surely(pb.WorkerCall(destroy=destroy), "destroying the key")

    async def remember(self, origin: str, head: TreeHead, *, is_rollback: bool = False) -> None:
        """See `operations.ports.Token.remember`."""
        memory = pb.LogMemory(origin=origin, size=head.size, root_hash=head.root_hash)
        call = pb.WorkerCall(remember=pb.RememberCall(memory=memory, is_rollback=is_rollback))
        answer = await self._ask(call)
        if answer.WhichOneof("answer") == "remember":
            return
        if answer.error.fault == pb.CALL_FAULT_MEMORY_NEWER:
            raise SignerError(Reason.TOKEN_REFUSED, "the token remembers a newer log, or another one")
        raise self._unavailable("remembering the log", answer.error.cause)

    async def recall(self, origin: str) -> TreeHead | None:
        """See `operations.ports.Token.recall`."""
        answer = await self._ask_surely(pb.WorkerCall(recall=pb.RecallCall(origin=origin)), "recalling the log")
        if answer.WhichOneof("answer") != "recall":
            raise self._unavailable("recalling the log", "the worker's answer does not fit the call")
        memory = answer.recall.memory
        return TreeHead(memory.size, memory.root_hash) if answer.recall.HasField("memory") else None

    async def _ask_surely(self, call: pb.WorkerCall, doing: str) -> pb.WorkerAnswer:
        """Ask what only a freshly opened token can deny; a worker that cannot be sure ends, and the next one is asked.

        Returns an answer, or the error NO_SUCH_KEY.
        """
        cause, is_answer = "", False
        for _ in range(_FIND_TRIES):
            try:
                async with asyncio.timeout(self._deadline_s):
                    await self.wait_connected()
                answer = await self._call(call)
            except TimeoutError:
                cause, is_answer = "no worker came", False
                break
            except (NotSentError, NoAnswerError) as error:
                cause, is_answer = str(error), False
                continue
            if answer.WhichOneof("answer") != "error" or answer.error.fault == pb.CALL_FAULT_NO_SUCH_KEY:
                return answer
            cause, is_answer = answer.error.cause, True
            if answer.error.fault == pb.CALL_FAULT_KEY_REFUSED:
                _LOGGER.warning("the token refused %s: %s", doing, cause)
                message = "what the token has with that CKA_ID is not the key pair that is meant, or it refuses"
                raise SignerError(Reason.TOKEN_REFUSED, message)
            if answer.error.fault != pb.CALL_FAULT_TOKEN_FAILED:
                break
            await self._until_replaced()
        raise self._unavailable(doing, cause, is_answer=is_answer)

    async def status(self) -> TokenStatus:
        """See `operations.ports.Token.status`."""
        answer = await self._ask(pb.WorkerCall(status=pb.StatusCall()))
        if answer.WhichOneof("answer") != "status":
            raise self._unavailable("asking for its status", answer.error.cause)
        status = answer.status
        return TokenStatus(
            status.token_label, status.token_serial, status.module_description, frozenset(status.algorithms)
        )

    async def _ask(self, call: pb.WorkerCall, deadline_s: float | None = None) -> pb.WorkerAnswer:
        try:
            return await self._call(call, deadline_s)
        except (NotSentError, NoAnswerError) as error:
            raise self._unavailable("asking it", str(error)) from error

    async def _call(self, call: pb.WorkerCall, deadline_s: float | None = None) -> pb.WorkerAnswer:
        deadline_s = self._deadline_s if deadline_s is None else deadline_s
        connection = self._connection
        if connection is None or not connection.is_open:
            raise NotSentError("no token worker is connected")
        self._next_id += 1
        call.id = self._next_id
        frame = encode_frame(call)
        if len(frame) > self._frame_limit:
            raise NotSentError(f"the call has {len(frame)} bytes, the worker takes {self._frame_limit}")
        try:
            async with asyncio.timeout(deadline_s):
                return await connection.exchange(call.id, frame)
        except TimeoutError as error:
            raise NoAnswerError(f"no answer within {deadline_s:g} s") from error

    def _unavailable(self, doing: str, cause: str, *, is_answer: bool = False) -> SignerError:
        self._complain(f"the token failed {doing}: {cause}")
        message, metadata = f"the token is not available ({doing})", TOKEN_ANSWERED if is_answer else {}
        return SignerError(Reason.TOKEN_UNAVAILABLE, message, metadata=metadata, retry_after_s=_RETRY_AFTER_S)

    def _complain(self, fault: str) -> None:
        """Write a fault to the operational log, once a minute: a token that is away is asked many times a second."""
        now_s = asyncio.get_running_loop().time()
        self._said_s = {text: said_s for text, said_s in self._said_s.items() if now_s < said_s + _SAY_AGAIN_S}
        if fault not in self._said_s:
            self._said_s[fault] = now_s
            _LOGGER.warning("%s", fault)

    async def _until_replaced(self) -> None:
        """Wait until the present worker has gone; it said that it would, so a deadline is only a guard."""
        connection = self._connection
        if connection is not None:
            await asyncio.wait({connection.gone}, timeout=self._deadline_s)

    async def _keep_connected(self) -> None:
        loop = asyncio.get_running_loop()
        delay_s = _FIRST_DELAY_S
        while True:
            since = loop.time()
            try:
                _, connection = await loop.create_unix_connection(
                    lambda: ClientConnection(self._frame_limit), str(self._path)
                )
            except OSError:
                connection = None
            if connection is not None:
                self._connection = connection
                self.connections += 1
                self._is_connected.set()
                await asyncio.wait({connection.gone})
                self._is_connected.clear()
                self._connection = None
                _LOGGER.warning("the connection to the token worker was lost")
            if loop.time() - since > _GOOD_CONNECTION_S:
                delay_s = _FIRST_DELAY_S
            await asyncio.sleep(delay_s)
            delay_s = min(2 * delay_s, _LONGEST_DELAY_S)


def _fill_sign_call(call: pb.SignCall, tasks: Sequence[SignTask]) -> None:
    """Name each key once; batches mostly use few keys."""
    indexes: dict[tuple[bytes, bytes, str, bool], int] = {}
    items = call.items
    for task in tasks:
        identity = (task.cka_id, task.public_key, task.algorithm.name, task.allow_unprotected)
        index = indexes.get(identity)
        if index is None:
            index = indexes[identity] = len(indexes)
            call.keys.add(
                cka_id=task.cka_id,
                public_key=task.public_key,
                algorithm=task.algorithm.name,
                allow_unprotected=task.allow_unprotected,
            )
        items.add(key=index, data=task.data)


def _outcome(outcome: pb.SignOutcome) -> SignOutcome:
    return SignOutcome(_STATUSES.get(outcome.status, SignStatus.UNKNOWN), outcome.signature, outcome.cause)


def _key_pair(pair: pb.KeyPair) -> TokenKeyPair:
    return TokenKeyPair(pair.public_key, pair.local, pair.always_sensitive, pair.never_extractable)
