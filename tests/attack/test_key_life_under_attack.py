"""The life of keys under attack: versions out of order, reused request ids, versions that were never tried."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

from hsmsigner.domain.instant import Instant
from hsmsigner.domain.key import CkaId, KeyName
from hsmsigner.domain.lifecycle import Verb
from hsmsigner.domain.public_key import to_pem
from hsmsigner.errors import Reason
from hsmsigner.operations.adoption import WantedAdoption
from hsmsigner.operations.key_changes import Cause
from hsmsigner.operations.ports import TokenKeyPair
from hsmsigner.verifier.continuity import verify_continuity
from tests.builder import OPERATOR, Signer, fresh_id, make_signer
from tests.scenarios import refused, run

HOUR = 3_600_000_000
EU, US = KeyName("settlement-eu"), KeyName("settlement-us")


async def continuity_document(signer: Signer) -> bytes:
    async with signer.store.transaction() as transaction:
        found = transaction.continuity.list(EU, 0, 100)
    statements = [{"signed_by_old": one.signed_by_old, "signed_by_new": one.signed_by_new} for one in found]
    return json.dumps({"key": str(EU), "statements": statements}).encode()


def test_whatever_version_is_activated_the_chain_of_statements_still_verifies(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with make_signer(tmp_path) as signer:
            first = to_pem((await signer.create_key()).primary.public_key).encode()
            await signer.rotate(activate_time=Instant(signer.clock.now + HOUR))
            await signer.change(Verb.SCHEDULE_DESTROY, 2)
            await signer.rotate()
            await signer.change(Verb.RESTORE, 2)

            # Version 2 after version 3: to be refused, or to be vouched for in a way that the verifier takes.
            await asyncio.gather(signer.change(Verb.ACTIVATE, 2), return_exceptions=True)

            assert verify_continuity(await continuity_document(signer), first).versions

    run(scenario())


def test_a_caller_who_goes_away_does_not_have_the_token_opened_anew(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with make_signer(tmp_path) as signer:
            await signer.create_key()
            generate, asked, go_on = signer.token.generate, asyncio.Event(), asyncio.Event()

            async def work(*arguments: object) -> TokenKeyPair:
                asked.set()
                await go_on.wait()
                return await generate(*arguments)  # type: ignore[arg-type]

            # As a real worker does: it goes on, whoever has gone.
            working: list[asyncio.Task[TokenKeyPair]] = []

            async def slowly(*arguments: object) -> TokenKeyPair:
                working.append(asyncio.create_task(work(*arguments)))
                return await asyncio.shield(working[-1])

            signer.token.generate = slowly  # type: ignore[assignment,method-assign]
            rotating = asyncio.create_task(signer.rotate())
            await asked.wait()
            rotating.cancel()
            await asyncio.gather(rotating, return_exceptions=True)

            looking = asyncio.create_task(signer.look_after())
            await asyncio.wait({looking}, timeout=0.2)
            go_on.set()
            await looking
            assert (signer.token.reopened, len(working)) == (0, 1)

    run(scenario())


def test_a_copy_of_a_pair_that_is_a_version_already_is_not_adopted(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with make_signer(tmp_path) as signer:
            key = await signer.create_key()
            copy = CkaId(b"copy")
            signer.token.keys[copy] = signer.token.keys[key.primary.cka_id]
            adopting = signer.adoption.adopt(
                OPERATOR, US, WantedAdoption(key.algorithm, copy), Cause(OPERATOR, "test", fresh_id())
            )
            assert await refused(adopting) is Reason.KEY_EXISTS

    run(scenario())


def test_one_request_id_makes_one_key(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with make_signer(tmp_path) as signer:
            algorithm, request_id = (await signer.create_key("other")).algorithm, fresh_id()
            await signer.keys.create(OPERATOR, EU, algorithm, request_id)
            second = signer.keys.create(OPERATOR, US, algorithm, request_id)
            assert await refused(second) is Reason.REQUEST_ID_REUSED

    run(scenario())
