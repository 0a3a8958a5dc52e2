"""A signer that kills itself with SIGKILL at a named step of a rotation; run as a program by test_kill_at_each_step.py.

Usage: rotate_and_crash.py FOLDER STEP. The store is the real one and the process really dies. The token is the fake one
with its keys in files, written where a device would have made them durable: inside generate and destroy.
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

from hsmsigner.domain.algorithm import SigningAlgorithm
from hsmsigner.domain.key import CkaId
from hsmsigner.operations.ports import SignOutcome, SignTask, TokenKeyPair
from hsmsigner.operations.reconcile import compare_with_token
from hsmsigner.store.transaction import SqlTransaction
from hsmsigner.store.unit_of_work import SqlStore
from tests.builder import Signer
from tests.fakes import FakeToken

# Each is named after the record that its commit writes.
COMMITS = (
    "key.rotation_started",
    "key.version_created",
    "key.continuity_authorized",
    "key.continuity",
    "key.activated",
    "key.destroy_scheduled",
    "key.destroy_started",
    "key.destroyed",
)
STEPS = (
    *(f"{moment} {commit}" for commit in COMMITS for moment in ("inside", "after")),
    *(f"{moment} the token {does}" for does in ("generates", "signs", "destroys") for moment in ("before", "after")),
)


class Trap:
    """Kills this process when its step is reached; armed only for the rotation."""

    step = ""

    @classmethod
    def reached(cls, step: str) -> None:
        if step == cls.step:
            os.kill(os.getpid(), signal.SIGKILL)


class TrappedStore(SqlStore):
    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[SqlTransaction]:
        written: list[str] = []
        async with super().transaction() as transaction:
            append = transaction.append

            def noted(entries: Sequence[object], now: object) -> int:
                written.extend(entry.type for entry in entries)  # type: ignore[attr-defined]
                first = append(entries, now)  # type: ignore[arg-type]
                for kind in written:
                    Trap.reached(f"inside {kind}")
                return first

            transaction.append = noted  # type: ignore[method-assign]
            yield transaction
        for kind in written:
            Trap.reached(f"after {kind}")


class TokenOnDisk(FakeToken):
    folder = Path()

    def load(self) -> None:
        for path in self.folder.glob("*.pem"):
            self.keys[CkaId(bytes.fromhex(path.stem))] = load_pem_private_key(path.read_bytes(), None)

    async def generate(self, cka_id: CkaId, label: str, algorithm: SigningAlgorithm) -> TokenKeyPair:
        Trap.reached("before the token generates")
        pair = await super().generate(cka_id, label, algorithm)
        pem = self.keys[cka_id].private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        (self.folder / f"{cka_id.hex()}.pem").write_bytes(pem)
        Trap.reached("after the token generates")
        return pair

    async def sign(self, tasks: Sequence[SignTask]) -> list[SignOutcome]:
        Trap.reached("before the token signs")
        outcomes = await super().sign(tasks)
        Trap.reached("after the token signs")
        return outcomes

    async def destroy(self, cka_id: CkaId, public_key: bytes, algorithm: SigningAlgorithm) -> None:
        Trap.reached("before the token destroys")
        await super().destroy(cka_id, public_key, algorithm)
        (self.folder / f"{cka_id.hex()}.pem").unlink(missing_ok=True)
        Trap.reached("after the token destroys")


async def main(folder: Path, step: str) -> None:
    token = TokenOnDisk()
    token.folder = folder
    token.load()
    signer = Signer(folder, token=token, store_class=TrappedStore)
    await signer.start()
    if not signer.governance.newest.keys:
        await signer.create_key()
        await signer.set_policy(rotation_period_us=60_000_000, destroy_after_us=60_000_000)
    else:
        await signer.keys.finish_pending()
        assert await compare_with_token(signer.store, token, signer.governance, signer.clock) == []
    Trap.step = step
    for seconds in (61,) * 5:
        signer.clock.advance(seconds)
        await signer.look_after()
        # Nobody else is there to rotate again: what is asked is whether this one rotation comes to its end.
        if signer.key().primary_number == 2 and signer.key().rotation_policy.rotation_period_us:
            await signer.set_policy(destroy_after_us=60_000_000)
    await signer.sign()
    await signer.stop()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
