"""One question to one witness: our client against a server of the test's own."""

from __future__ import annotations

import asyncio

from hsmsigner.operations.ports.witness import Cosignature, Fault
from hsmsigner.transparency.cosignature import cosignature, cosigned_message
from hsmsigner.transparency.note import read_note
from hsmsigner.witness.client import HttpWitness
from hsmsigner.witness.setup import make_witnesses
from tests.witness.twins import COSIGN_TIME_S, Answering, LogTwin, WitnessTwin, seeded_key, serving

LOG = LogTwin.of(70)
TWIN = WitnessTwin()
CHECKPOINT = LOG.checkpoint()
TEXT, _ = read_note(CHECKPOINT.note)
GOOD = TWIN.line(CHECKPOINT.note).text.encode()
SIZE = "text/x.tlog.size"


def ask(answering: Answering, old_size: int = 0, *, log: LogTwin = LOG, timeout_s: float = 15.0) -> Cosignature | Fault:
    async def scenario() -> Cosignature | Fault:
        async with serving(answering) as url:
            return await client(url, timeout_s).add_checkpoint(log.checkpoint(), old_size, log.prove)

    return asyncio.run(asyncio.wait_for(scenario(), 60))


def client(url: str, timeout_s: float = 15.0) -> HttpWitness:
    return make_witnesses([(TWIN.key.vkey, url)], timeout_s=timeout_s)[0]


def fault_of(answering: Answering, old_size: int = 0, **options: float) -> Fault:
    answer = ask(answering, old_size, **options)  # type: ignore[arg-type]  # a time-out is the only option
    assert isinstance(answer, Fault)
    return answer


def signed_by(seed: str, seconds: int = COSIGN_TIME_S, text: str = TEXT) -> bytes:
    return cosignature(seconds, seeded_key(seed).sign(cosigned_message(text, seconds)))
