"""One SignCall: cut over the threads, signed, verified, answered when its last piece is done."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from threading import Lock

from cryptography.exceptions import InvalidSignature

from hsmsigner.pb import token_pb2 as pb
from hsmsigner.token.faults import KeyMissingError, KeyRefusedError, SignFailedError, TokenError
from hsmsigner.token.health import Health
from hsmsigner.token.pool import Job, Watch
from hsmsigner.token.sessions import KeyIdentity, TokenSession, UsableKey

# Waking another thread costs about as much as a few signatures of a fast token.
_LEAST_PIECE = 4


def not_called(cause: str) -> pb.SignOutcome:
    """The outcome of an item that never reached C_Sign."""
    return pb.SignOutcome(status=pb.SIGN_STATUS_NOT_CALLED, cause=cause)


class SignBatch:
    """Collects the pieces' outcomes; `finish` gets them all, in order, from the thread that was last."""

    def __init__(self, call: pb.SignCall, health: Health, finish: Callable[[list[pb.SignOutcome]], None]) -> None:
        self._keys = [
            KeyIdentity(key.cka_id, key.public_key, key.algorithm, key.allow_unprotected) for key in call.keys
        ]
        self._items = call.items
        self._health = health
        self._finish = finish
        self._pieces: dict[int, list[pb.SignOutcome]] = {}
        self._lock = Lock()

    def jobs(self, threads: int) -> list[Job]:
        """Cut the items into at most `threads` runs of neighbours."""
        count = len(self._items)
        size = max(_LEAST_PIECE, -(-count // threads))
        begins = range(0, count, size)
        expected = len(begins)

        def job(begin: int) -> Job:
            def run(session: TokenSession, watch: Watch) -> None:
                outcomes = sign_items(session, watch, self._health, self._keys, self._items[begin : begin + size])
                with self._lock:
                    self._pieces[begin] = outcomes
                    is_last = len(self._pieces) == expected
                if is_last:
                    self._finish([outcome for at in begins for outcome in self._pieces[at]])

            return run

        return [job(begin) for begin in begins]


def sign_items(
    session: TokenSession, watch: Watch, health: Health, keys: Sequence[KeyIdentity], items: Sequence[pb.SignItem]
) -> list[pb.SignOutcome]:
    """Sign and verify each item; one outcome per item, in order, each saying exactly what is known."""
    usable: dict[int, UsableKey] = {}
    refused: dict[int, pb.SignOutcome] = {}
    outcomes = []
    for item in items:
        index = item.key
        if health.lost or index in refused:
            outcomes.append(refused.get(index) or not_called(f"the worker is ending: {health.lost}"))
            continue
        watch.started = time.monotonic()
        key = usable.get(index)
        if key is None:
            found = _find(session, health, keys, index)
            if isinstance(found, pb.SignOutcome):
                refused[index] = found
                outcomes.append(found)
                continue
            key = usable[index] = found
        outcomes.append(_sign(session, health, key, item.data))
    return outcomes


def _find(session: TokenSession, health: Health, keys: Sequence[KeyIdentity], index: int) -> UsableKey | pb.SignOutcome:
    if index >= len(keys):
        return not_called(f"no key {index} in the call")
    identity = keys[index]
    if health.is_missing(identity.cka_id):
        return not_called(f"CKA_ID {identity.cka_id.hex()} was not found lately")
    try:
        try:
            return session.key(identity)
        except KeyMissingError as error:
            # A token that is away shows nothing at all; that says nothing about this key.
            session.check_alive()
            health.report_missing(identity.cka_id)
            return not_called(str(error))
    except KeyRefusedError as error:
        return not_called(str(error))
    except TokenError as error:
        health.report(error)
        return not_called(error.cause)


def _sign(session: TokenSession, health: Health, key: UsableKey, data: bytes) -> pb.SignOutcome:
    try:
        key.mechanism.check_data(data)
        signature = key.verify(session.sign(key, data), data)
    except KeyRefusedError as error:
        return not_called(str(error))
    except SignFailedError as error:
        health.report(error)
        if not error.was_called:
            return not_called(error.cause)
        status = pb.SIGN_STATUS_REFUSED if error.is_refused else pb.SIGN_STATUS_UNSPECIFIED
        return pb.SignOutcome(status=status, cause=error.cause)
    except InvalidSignature:
        return pb.SignOutcome(status=pb.SIGN_STATUS_WRONG_SIGNATURE, cause="the signature does not verify")
    return pb.SignOutcome(status=pb.SIGN_STATUS_SIGNED, signature=signature)
