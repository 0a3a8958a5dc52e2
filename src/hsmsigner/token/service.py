"""What a worker answers to each call. Runs jobs on the pool; an answer may come from any of its threads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from threading import Lock

from hsmsigner.operations.ports import TokenKeyPair
from hsmsigner.pb import token_pb2 as pb
from hsmsigner.token.batch import SignBatch, not_called
from hsmsigner.token.faults import KeyMissingError, KeyRefusedError, TokenError
from hsmsigner.token.health import Health
from hsmsigner.token.keys import (
    AlgorithmUnsupportedError,
    KeyIdTakenError,
    KeyNotProtectedError,
    TokenFullError,
    TokenKeys,
)
from hsmsigner.token.mechanism import MECHANISMS
from hsmsigner.token.memory import ROOT_BYTES, MemoryNewerError, TokenMemories
from hsmsigner.token.module import TokenModule
from hsmsigner.token.pool import Job, TokenPool, Watch
from hsmsigner.token.sessions import TokenSession

# An RSA pair of 4096 bits takes a slow device this long (seconds); signing is never given it.
GENERATE_S = 60.0

Reply = Callable[[pb.WorkerAnswer], None]
Answer = Callable[[pb.WorkerCall, TokenSession], pb.WorkerAnswer]

_GENERATE_FAULTS: dict[type[Exception], pb.CallFault.ValueType] = {
    KeyIdTakenError: pb.CALL_FAULT_KEY_REFUSED,
    TokenFullError: pb.CALL_FAULT_KEY_REFUSED,
    AlgorithmUnsupportedError: pb.CALL_FAULT_ALGORITHM_UNSUPPORTED,
    KeyNotProtectedError: pb.CALL_FAULT_KEY_NOT_PROTECTED,
    KeyRefusedError: pb.CALL_FAULT_TOKEN_FAILED,
}


class TokenService:
    """Answers calls. `submit` runs on one thread; `reply` is called once per call, from any thread."""

    def __init__(self, module: TokenModule, algorithms: Sequence[str], pool: TokenPool, health: Health) -> None:
        self._module = module
        self._pool = pool
        self._health = health
        writing = Lock()
        self._keys, self._memories = TokenKeys(writing), TokenMemories(writing)
        # Those the token listed at start: mechanisms do not change while a module is initialised.
        self._algorithms = algorithms
        self._answers: dict[str | None, Answer] = {
            "generate": self._generate,
            "find": self._find,
            "destroy": self._destroy,
            "remember": self._remember,
            "recall": self._recall,
            "status": self._status,
        }

    def submit(self, call: pb.WorkerCall, reply: Reply) -> None:
        """Start on a call."""
        kind = call.WhichOneof("call")
        if kind == "sign":
            self._sign(call, reply)
        elif kind in self._answers:
            extra_s = GENERATE_S if kind == "generate" else 0.0
            self._pool.submit(self._job(call, reply, self._answers[kind], extra_s))
        else:
            reply(_error(call, pb.CALL_FAULT_BAD_CALL, "the call names nothing to do"))

    def refuse(self, call: pb.WorkerCall, cause: str) -> pb.WorkerAnswer:
        """The answer to a call that will not be started."""
        if call.WhichOneof("call") == "sign":
            return _signed(call, [not_called(cause)] * len(call.sign.items))
        return _error(call, pb.CALL_FAULT_TOKEN_FAILED, cause)

    def _sign(self, call: pb.WorkerCall, reply: Reply) -> None:
        if not call.sign.items:
            reply(_signed(call, []))
            return
        batch = SignBatch(call.sign, self._health, lambda outcomes: reply(_signed(call, outcomes)))
        for job in batch.jobs(self._pool.size):
            self._pool.submit(job)

    def _job(
        self,
        call: pb.WorkerCall,
        reply: Reply,
        answer: Answer,
        extra_s: float,
    ) -> Job:
        def run(session: TokenSession, watch: Watch) -> None:
            watch.grant(extra_s)
            if self._health.lost:
                reply(self.refuse(call, f"the worker is ending: {self._health.lost}"))
                return
            try:
                reply(answer(call, session))
            except TokenError as error:
                self._health.report(error)
                reply(_error(call, pb.CALL_FAULT_TOKEN_FAILED, error.cause))

        return run

    def _generate(self, call: pb.WorkerCall, session: TokenSession) -> pb.WorkerAnswer:
        wanted = call.generate
        if wanted.algorithm not in self._algorithms:
            return _error(call, pb.CALL_FAULT_ALGORITHM_UNSUPPORTED, f"{wanted.algorithm[:80]!r}: no such mechanism")
        if not wanted.cka_id:
            return _error(call, pb.CALL_FAULT_BAD_CALL, "the CKA_ID is empty")
        try:
            pair = self._keys.generate(session, wanted.cka_id, wanted.label, MECHANISMS[wanted.algorithm])
        except tuple(_GENERATE_FAULTS) as error:
            return _error(call, _GENERATE_FAULTS[type(error)], str(error))
        return _pair(call, pair)

    def _find(self, call: pb.WorkerCall, session: TokenSession) -> pb.WorkerAnswer:
        cka_id = call.find.cka_id
        row = MECHANISMS.get(call.find.algorithm)
        if row is None or not cka_id:
            return _error(call, pb.CALL_FAULT_BAD_CALL, f"{call.find.algorithm[:80]!r} or the CKA_ID is not valid")
        try:
            return _pair(call, self._keys.describe(session, cka_id, row))
        except KeyRefusedError as error:
            return _error(call, pb.CALL_FAULT_KEY_REFUSED, str(error))
        except KeyMissingError as error:
            return self._missing(call, session, str(error), is_sure=not call.find.is_unsure)

    def _destroy(self, call: pb.WorkerCall, session: TokenSession) -> pb.WorkerAnswer:
        wanted = call.destroy
        row = MECHANISMS.get(wanted.algorithm)
        if row is None or not wanted.cka_id or not wanted.public_key:
            return _error(call, pb.CALL_FAULT_BAD_CALL, "CKA_ID, public key or algorithm is not valid")
        try:
            self._keys.destroy(session, wanted.cka_id, wanted.public_key, row)
        except KeyRefusedError as error:
            return _error(call, pb.CALL_FAULT_KEY_REFUSED, str(error))
        except KeyMissingError as error:
            return self._missing(call, session, str(error), is_sure=True)
        return pb.WorkerAnswer(id=call.id, destroy=pb.DestroyAnswer())

    def _remember(self, call: pb.WorkerCall, session: TokenSession) -> pb.WorkerAnswer:
        memory, is_rollback = call.remember.memory, call.remember.is_rollback
        if not memory.origin or len(memory.root_hash) != ROOT_BYTES:
            return _error(call, pb.CALL_FAULT_BAD_CALL, "the origin is empty or the root is not a SHA-256")
        try:
            self._memories.remember(session, memory.origin, memory.size, memory.root_hash, is_rollback=is_rollback)
        except MemoryNewerError as error:
            return _error(call, pb.CALL_FAULT_MEMORY_NEWER, str(error))
        return pb.WorkerAnswer(id=call.id, remember=pb.RememberAnswer())

    def _recall(self, call: pb.WorkerCall, session: TokenSession) -> pb.WorkerAnswer:
        origin = call.recall.origin
        memory = self._memories.recall(session, origin)
        answer = pb.WorkerAnswer(id=call.id, recall=pb.RecallAnswer())
        if memory is not None:
            wire = pb.LogMemory(origin=origin, size=memory.size, root_hash=memory.root_hash)
            answer.recall.memory.CopyFrom(wire)
            return answer
        # A token whose folder was away for a moment goes on showing nothing: what is not there is never believed of it.
        missing = self._missing(call, session, "the token shows no memory of the log", is_sure=True)
        return answer if missing.error.fault == pb.CALL_FAULT_NO_SUCH_KEY else missing

    def _missing(self, call: pb.WorkerCall, session: TokenSession, cause: str, *, is_sure: bool) -> pb.WorkerAnswer:
        session.check_alive()
        if self._health.is_fresh or not is_sure:
            return _error(call, pb.CALL_FAULT_NO_SUCH_KEY, cause)
        self._health.give_up(f"{cause}; only a fresh process can tell")
        return _error(call, pb.CALL_FAULT_TOKEN_FAILED, f"{cause}; ask again")

    def _status(self, call: pb.WorkerCall, session: TokenSession) -> pb.WorkerAnswer:
        session.check_alive()
        status = pb.StatusAnswer(
            token_label=self._module.label,
            token_serial=self._module.serial,
            module_description=self._module.description,
            algorithms=self._algorithms,
        )
        return pb.WorkerAnswer(id=call.id, status=status)


def _signed(call: pb.WorkerCall, outcomes: list[pb.SignOutcome]) -> pb.WorkerAnswer:
    return pb.WorkerAnswer(id=call.id, sign=pb.SignAnswer(outcomes=outcomes))


def _pair(call: pb.WorkerCall, pair: TokenKeyPair) -> pb.WorkerAnswer:
    key_pair = pb.KeyPair(
        public_key=pair.public_key,
        local=pair.local,
        always_sensitive=pair.always_sensitive,
        never_extractable=pair.never_extractable,
    )
    return pb.WorkerAnswer(id=call.id, key_pair=key_pair)


def _error(call: pb.WorkerCall, fault: pb.CallFault.ValueType, cause: str) -> pb.WorkerAnswer:
    return pb.WorkerAnswer(id=call.id, error=pb.CallError(fault=fault, cause=cause))
