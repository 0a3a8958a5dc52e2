"""The doctor names key pairs that the token was found to lack."""

from __future__ import annotations

import asyncio
import sqlite3
from datetime import UTC, datetime
from pathlib import Path

import pytest

from hsmsigner.doctor import Finding, Level, diagnose
from hsmsigner.domain.lifecycle import Verb
from hsmsigner.operations.reconcile import compare_with_token
from tests.builder import make_signer

# After all that the tests' clock, which begins at 2027-01-15 08:00 UTC, writes.
LATER = datetime(2027, 1, 15, 9, tzinfo=UTC)


def examine(state: Path) -> list[Finding]:
    return list(diagnose(state / "hsmsigner.yaml", LATER, with_token=False))


@pytest.mark.parametrize(
    ("verbs", "level"),
    [([], Level.FAULT), ([Verb.DEACTIVATE], Level.WARNING), ([Verb.DEACTIVATE, Verb.SCHEDULE_DESTROY], Level.WARNING)],
)
def test_pair_that_the_token_lacks_is_named(state: Path, verbs: list[Verb], level: Level) -> None:
    async def lose_a_pair() -> None:
        async with make_signer(state) as signer:
            key = await signer.create_key()
            await signer.rotate(overlap_us=3_600_000_000)
            for verb in verbs:
                await signer.change(verb, 1)
            del signer.token.keys[key.primary.cka_id]
            await compare_with_token(signer.store, signer.token, signer.governance, signer.clock)

    asyncio.run(lose_a_pair())

    (found,) = [finding for finding in examine(state) if finding.check == "pairs"]

    assert found.level is level
    assert "keys/settlement-eu/versions/1" in found.message
    assert "2027-01-15 08:00" in found.message
    assert found.way_out


def test_pairs_that_are_all_there_or_are_gone_on_purpose_are_fine(state: Path) -> None:
    async def lose_and_destroy() -> None:
        async with make_signer(state) as signer:
            key = await signer.create_key()
            await signer.rotate()
            del signer.token.keys[key.primary.cka_id]
            await compare_with_token(signer.store, signer.token, signer.governance, signer.clock)
            await signer.change(Verb.SCHEDULE_DESTROY, 1)
            await signer.change(Verb.DESTROY, 1)

    asyncio.run(lose_and_destroy())

    (found,) = [finding for finding in examine(state) if finding.check == "pairs"]
    assert found.level is Level.OK


def test_store_of_an_older_release_is_not_asked_for_what_it_does_not_know(state: Path) -> None:
    with sqlite3.connect(state / "store.sqlite3") as old:
        old.execute("CREATE TABLE audit_records (sequence INTEGER PRIMARY KEY, record BLOB)")
        old.execute("CREATE TABLE key_versions (key_id TEXT, number INTEGER)")

    assert [finding.level for finding in examine(state) if finding.check in ("pairs", "clock")] == [Level.OK]
