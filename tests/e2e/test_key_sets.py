"""Verifiers watch the public keys: a change reaches them without polling, and only those that they may see."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hsmsigner.client import KeySet
from tests.e2e.appliance import Appliance, running_appliance

FIRST = "keys/settlement-eu/versions/1"


@pytest.fixture(scope="module")
def appliance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Appliance]:
    with running_appliance(tmp_path_factory.mktemp("key-sets")) as appliance:
        yield appliance


def has(name: str) -> Callable[[KeySet], bool]:
    return lambda key_set: key_set.get(name) is not None


def test_new_key_reaches_who_watches(appliance: Appliance) -> None:
    with appliance.client("engine") as client, client.watch_keys() as keys:
        before = keys.current
        assert set(before.public_keys) >= {FIRST}

        appliance.create_key("settlement-us", "ED25519")

        after = keys.wait_for(has("keys/settlement-us/versions/1"))
        assert after.epoch > before.epoch
        assert after.public_keys == {key.name: key for key in client.list_public_keys()}


def test_only_what_the_policy_lets_one_see_is_pushed_and_a_new_policy_counts_at_once(appliance: Appliance) -> None:
    document = (appliance.state / "policy.yaml").read_text()
    grant = '  - {principals: ["spiffe://dev.hsmsigner/unknown/stranger"], keys: ["**"], rights: [get_public_key]}\n'

    with appliance.client("stranger") as stranger, stranger.watch_keys() as keys:
        assert keys.current.public_keys == {}
        with appliance.client("operator") as operator:
            operator.publish_policy(document.replace("keys:\n  - {match", grant + "keys:\n  - {match"), comment="may")
            assert keys.wait_for(has(FIRST)).public_keys
            operator.publish_policy(document, comment="may not")
            keys.wait_for(lambda key_set: not key_set.public_keys)


def test_policy_that_changes_no_key_set_is_not_pushed(appliance: Appliance) -> None:
    document = (appliance.state / "policy.yaml").read_text()

    with appliance.client("engine") as engine, engine.watch_keys() as keys:
        epoch = keys.current.epoch
        with appliance.client("operator") as operator:
            operator.publish_policy(document, comment="again")
        appliance.create_key("settlement-jp", "ED25519")
        # The next set that comes is the new key's.
        assert keys.wait_for(lambda key_set: key_set.epoch != epoch).get("keys/settlement-jp/versions/1")


def test_appliance_stops_in_order_under_watch_and_is_followed_again_when_it_is_back(tmp_path: Path) -> None:
    # A grace for those who do not end that is longer than `stop` waits: the watch is told.
    limits = {"stop_grace_s": 300.0}
    with (
        running_appliance(tmp_path, limits=limits) as appliance,
        appliance.client("engine") as client,
        client.watch_keys() as keys,
    ):
        assert appliance.stop() == 0
        assert has(FIRST)(keys.current)
        appliance.start()
        appliance.create_key("settlement-us", "ED25519")
        keys.wait_for(has("keys/settlement-us/versions/1"))


def test_destroyed_version_leaves_the_key_sets_and_is_still_answered_by_name(appliance: Appliance) -> None:
    key = "keys/settlement-gone"
    appliance.create_key("settlement-gone", "ED25519")
    first, second = f"{key}/versions/1", f"{key}/versions/2"

    with appliance.client("operator") as operator, operator.watch_keys() as keys:
        keys.wait_for(has(first))
        operator.rotate_key(key, reason="test")
        keys.wait_for(has(second))
        operator.schedule_destroy_key_version(first, reason="test")
        operator.destroy_key_version(first, reason="test")

        left = keys.wait_for(lambda key_set: key_set.get(first) is None)
        assert left.get(second) is not None
        assert {one.name for one in operator.list_public_keys() if one.name.startswith(key)} == {second}
        # Whoever has a signature of it finds it by its name, and the history has it.
        assert operator.get_public_key(first).name == first
        assert [one.name for one in operator.list_key_versions(key)] == [first, second]
