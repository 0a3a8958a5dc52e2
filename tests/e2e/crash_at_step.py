"""A signer that kills itself with SIGKILL at a named step of one Sign; run as a program by test_kill_at_each_step.py.

Usage: crash_at_step.py FOLDER STEP REQUEST_ID. The store is the real one, the process really dies; the token is the
fake one, since its key must outlive this process no more than the test needs: it is remembered in FOLDER/key.pem.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from hsmsigner.domain.signing import RequestId
from hsmsigner.operations.ports import SignOutcome, SignTask
from hsmsigner.store.transaction import SqlTransaction
from hsmsigner.store.unit_of_work import SqlStore
from tests.builder import Signer
from tests.fakes import FakeToken

STEPS = (
    "before commit A",
    "inside commit A",
    "after commit A",
    "while the token signs",
    "after the token signed",
    "inside commit B",
    "after commit B",
)


class Trap:
    """Kills this process when its step is reached; armed only for the Sign, not for making the key."""

    step = ""

    @classmethod
    def reached(cls, step: str) -> None:
        if step == cls.step:
            os.kill(os.getpid(), signal.SIGKILL)


class TrappedStore(SqlStore):
    commits = 0

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[SqlTransaction]:
        turn = "AB"[self.commits] if Trap.step and self.commits < 2 else ""
        Trap.reached(f"before commit {turn}")
        async with super().transaction() as transaction:
            yield transaction
            Trap.reached(f"inside commit {turn}")
        if Trap.step:
            self.commits += 1
        Trap.reached(f"after commit {turn}")


class TrappedToken(FakeToken):
    async def sign(self, tasks: Sequence[SignTask]) -> list[SignOutcome]:
        Trap.reached("while the token signs")
        outcomes = await super().sign(tasks)
        Trap.reached("after the token signed")
        return outcomes


async def main(folder: Path, step: str, request_id: str) -> None:
    token = TrappedToken()
    signer = Signer(folder, token=token, store_class=TrappedStore)
    await signer.start()
    if (folder / "key.pem").exists():
        (key,) = signer.governance.newest.keys.values()
        token.keys[key.primary.cka_id] = load_pem_private_key((folder / "key.pem").read_bytes(), None)
    else:
        key = await signer.create_key()
        private = token.keys[key.primary.cka_id]
        pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        (folder / "key.pem").write_bytes(pem)
    Trap.step = step
    answer = await signer.sign(request_id=RequestId(request_id))
    sys.stdout.write(answer.signature.hex())
    sys.stdout.flush()
    await signer.stop()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2], sys.argv[3]))
