"""A store of the first schema, full of data, is brought to the newest one and goes on."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config

from hsmsigner.domain.key import KeyName, KeyOrigin, KeyState
from hsmsigner.domain.rotation_policy import NO_ROTATION
from hsmsigner.errors import Reason, SignerError
from hsmsigner.store.engine import open_writer
from tests.builder import OPERATOR, Signer, check_invariants, make_signer
from tests.fakes import FakeToken

_ADDED = {
    "keys": ("rotation_policy", "revision"),
    "key_versions": (
        *("origin", "allow_unprotected", "activate_time", "deactivate_time", "destroy_time", "scheduled_from"),
        *("is_destroying", "missing_time", "certificate_chain", "signature_count", "revision"),
    ),
}


_TABLES = (
    "appliance",
    "audit_records",
    "policy_revisions",
    "keys",
    "key_versions",
    "quota_usage",
    "sign_requests",
)


def to_first_schema(database: Path) -> None:
    """Make an empty store of schema 0001, as that release made it."""
    config = Config()
    config.set_main_option("script_location", "hsmsigner.store:migrations")
    engine = open_writer(f"sqlite:///{database}")
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
    engine.dispose()


def test_a_store_of_the_first_schema_keeps_its_keys_and_can_rotate_them(tmp_path: Path) -> None:
    async def scenario() -> None:
        token = FakeToken()
        database = tmp_path / "store.sqlite3"
        to_first_schema(database)
        await fill_first_schema(tmp_path, database, token)

        signer = Signer(tmp_path, token=token)
        await signer.start()
        key = signer.key()
        version = key.primary
        assert (version.state, version.origin, version.activate_time) == (
            KeyState.ACTIVE,
            KeyOrigin.GENERATED,
            version.create_time,
        )
        assert (key.rotation_policy, key.etag, version.etag) == (NO_ROTATION, "k1", "v1")
        await signer.sign()
        assert (await signer.rotate()).primary_number == 2
        counted = await signer.keys.get_counted(OPERATOR, KeyName("settlement-eu"))
        assert [one.signature_count for one in counted.versions] == [1, 0]
        await signer.stop()
        check_invariants(database)

    asyncio.run(asyncio.wait_for(scenario(), 60))


def test_a_request_that_made_a_key_before_the_upgrade_still_stands_for_it(tmp_path: Path) -> None:
    async def scenario() -> None:
        token = FakeToken()
        database = tmp_path / "store.sqlite3"
        to_first_schema(database)
        await fill_first_schema(tmp_path, database, token)
        with sqlite3.connect(database) as old:
            (used,) = old.execute("SELECT request_id FROM keys").fetchone()

        async with make_signer(tmp_path, token=token) as signer:
            name, algorithm = KeyName("settlement-eu"), signer.key().algorithm
            assert await signer.keys.create(OPERATOR, name, algorithm, used) == signer.key()
            with pytest.raises(SignerError) as caught:
                await signer.keys.create(OPERATOR, KeyName("another"), algorithm, used)
            assert caught.value.reason is Reason.REQUEST_ID_REUSED

    asyncio.run(asyncio.wait_for(scenario(), 60))


async def fill_first_schema(folder: Path, database: Path, token: FakeToken) -> None:
    """Make a key and a signature with today's code, then move its rows over into the first schema."""
    (folder / "today").mkdir()
    today = Signer(folder / "today", token=token)
    await today.start()
    await today.create_key()
    await today.sign()
    await today.stop()
    with sqlite3.connect(database) as old:
        old.execute("ATTACH DATABASE ? AS today", (str(today.database),))
        for table in (
            "appliance",
            "audit_records",
            "policy_revisions",
            "keys",
            "key_versions",
            "quota_usage",
            "sign_requests",
        ):
            columns = [row[1] for row in old.execute(f"PRAGMA main.table_info({table})")]
            assert not set(columns) & set(_ADDED.get(table, ()))
            names = ", ".join(columns)
            old.execute(f"DELETE FROM main.{table}")  # noqa: S608 - our own names
            old.execute(f"INSERT INTO main.{table} ({names}) SELECT {names} FROM today.{table}")  # noqa: S608
