"""The contract of a transaction's tables (operations/ports): requests, usage, keys, policies."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from msgspec import structs

from hsmsigner.domain.instant import Instant
from hsmsigner.domain.key import CkaId, Key, KeyName, VersionName
from hsmsigner.domain.quota import CounterId, Usage
from hsmsigner.errors import Reason, SignerError
from hsmsigner.operations.ports import PendingKey, PolicyRevision, RequestKey, RequestState, Store, StoredRequest
from hsmsigner.store.schema import metadata
from tests.contract.stores import NOW, P256, first_version, pending, rows, run, stored


def test_a_request_is_found_as_it_was_inserted_by_id_and_principal(database: Path) -> None:
    async def scenario(store: Store) -> None:
        async with store.transaction() as transaction:
            transaction.requests.insert([stored(1), stored(2)])
            transaction.requests.insert([])
        async with store.transaction() as transaction:
            other = RequestKey("spiffe://test/other", stored(1).key.request_id)
            asked = [stored(1).key, stored(2).key, stored(3).key, other]
            assert transaction.requests.find(asked) == {stored(1).key: stored(1), stored(2).key: stored(2)}
            assert transaction.requests.find([]) == {}

    run(database, scenario)


def test_a_request_id_is_one_row_per_principal(database: Path) -> None:
    async def scenario(store: Store) -> None:
        other = structs.replace(stored(2), key=RequestKey("spiffe://test/other", stored(1).key.request_id))
        async with store.transaction() as transaction:
            transaction.requests.insert([stored(1), other])
            assert len(transaction.requests.find([stored(1).key, other.key])) == 2
        with pytest.raises(SignerError) as caught:
            async with store.transaction() as transaction:
                transaction.requests.insert([structs.replace(stored(3), key=stored(1).key)])
        assert caught.value.reason is Reason.AUDIT_UNAVAILABLE

    run(database, scenario)


def test_an_update_writes_the_result_and_leaves_what_was_authorized(database: Path) -> None:
    async def scenario(store: Store) -> None:
        result: dict[str, object] = {
            "state": RequestState.COMPLETED,
            "completed_sequence": 6,
            "signature": b"\x00signature",
        }
        other: dict[str, object] = {
            "fingerprint": b"other",
            "version": "keys/a/versions/2",
            "policy_revision": 9,
            "authorize_time": Instant(NOW + 5),
            "expire_time": Instant(0),
        }
        async with store.transaction() as transaction:
            transaction.requests.insert([stored(1), stored(2)])
            transaction.requests.update([stored(1, **result, **other)])
            transaction.requests.update([])
        async with store.transaction() as transaction:
            found = transaction.requests.find([stored(1).key, stored(2).key])
            assert found == {stored(1).key: stored(1, **result), stored(2).key: stored(2)}

    run(database, scenario)


def test_a_deleted_request_is_forgotten_and_its_id_is_free(database: Path) -> None:
    async def scenario(store: Store) -> None:
        again = stored(5, key=stored(1).key)
        async with store.transaction() as transaction:
            transaction.requests.insert([stored(1), stored(2)])
            transaction.requests.delete([1, 77])
            transaction.requests.delete([])
            transaction.requests.insert([again])
        async with store.transaction() as transaction:
            found = transaction.requests.find([stored(1).key, stored(2).key])
            assert found == {stored(1).key: again, stored(2).key: stored(2)}

    run(database, scenario)


def test_the_oldest_authorized_requests_are_found_first(database: Path) -> None:
    async def scenario(store: Store) -> None:
        states = [RequestState.COMPLETED, RequestState.AUTHORIZED, RequestState.INTERRUPTED, RequestState.FAILED]
        made = [stored(number, state=states[number % 4]) for number in (9, 5, 1, 2, 3, 4)]
        async with store.transaction() as transaction:
            transaction.requests.insert(made)
            assert [row.sequence for row in transaction.requests.find_authorized(10)] == [1, 5, 9]
            assert [row.sequence for row in transaction.requests.find_authorized(2)] == [1, 5]

    run(database, scenario)


def test_expired_requests_go_oldest_first_and_authorized_ones_stay(database: Path) -> None:
    async def scenario(store: Store) -> None:
        done = RequestState.COMPLETED
        async with store.transaction() as transaction:
            transaction.requests.insert([stored(number, state=done) for number in (1, 3, 4, 5, 6)] + [stored(2)])
            requests = transaction.requests
            assert requests.delete_expired(NOW, 100) == 0
            assert requests.delete_expired(Instant(NOW + 5), 3) == 2
            assert set(remaining(requests.find(stored(number).key for number in range(1, 7)))) == {2, 4, 5, 6}
            assert requests.delete_expired(Instant(NOW + 5), 100) == 2
            assert set(remaining(requests.find(stored(number).key for number in range(1, 7)))) == {2, 6}
            assert requests.find_authorized(10) == [stored(2)]

    run(database, scenario)


def remaining(found: dict[RequestKey, StoredRequest]) -> list[int]:
    return sorted(row.sequence for row in found.values())


def test_usage_is_kept_counter_by_counter(database: Path) -> None:
    async def scenario(store: Store) -> None:
        first, second, absent = CounterId("keys/a|q|1|*"), CounterId("keys/a|q|1|cn:é'\""), CounterId("keys/b|q|1|*")
        async with store.transaction() as transaction:
            transaction.usage.save({first: Usage(((10**12, 1), (10**12 + 1, 3))), second: Usage()})
            transaction.usage.save({})
        async with store.transaction() as transaction:
            assert transaction.usage.load([first, second, absent]) == {
                first: Usage(((10**12, 1), (10**12 + 1, 3))),
                second: Usage(),
            }
            assert transaction.usage.load([]) == {}
            transaction.usage.save({first: Usage(((10**12 + 2, 1),))})
            assert transaction.usage.load([first]) == {first: Usage(((10**12 + 2, 1),))}

    run(database, scenario)


def test_a_key_is_pending_until_it_is_complete(database: Path) -> None:
    async def scenario(store: Store) -> None:
        async with store.transaction() as transaction:
            transaction.keys.insert_pending(pending("b"), NOW)
            transaction.keys.insert_pending(pending("a"), NOW)
        async with store.transaction() as transaction:
            keys = transaction.keys
            assert keys.load_pending() == [pending("a"), pending("b")]
            assert keys.load_all() == []
            assert keys.request_for(KeyName("a")) == pending().request
            assert keys.request_for(KeyName("c")) is None
            keys.complete(first_version("a"))
        async with store.transaction() as transaction:
            keys = transaction.keys
            assert keys.load_pending() == [pending("b")]
            assert keys.load_all() == [Key(KeyName("a"), P256, NOW, 1, (first_version("a"),))]
            assert keys.request_for(KeyName("a")) == pending().request

    run(database, scenario)


def test_a_command_is_found_by_principal_and_id(database: Path) -> None:
    async def scenario(store: Store) -> None:
        request = pending().request
        async with store.transaction() as transaction:
            assert transaction.commands.find(request) is None
            transaction.commands.insert(request, b"fingerprint", NOW)
        async with store.transaction() as transaction:
            assert transaction.commands.find(request) == b"fingerprint"
            assert transaction.commands.find(structs.replace(request, principal="spiffe://test/another")) is None
            assert transaction.commands.find(structs.replace(request, request_id=stored(2).key.request_id)) is None

    run(database, scenario)


def test_keys_are_loaded_by_name(database: Path) -> None:
    async def scenario(store: Store) -> None:
        async with store.transaction() as transaction:
            for key_id in ("b", "a", "a-b", "c"):
                transaction.keys.insert_pending(pending(key_id), NOW)
                transaction.keys.complete(first_version(key_id))
            assert [key.name.key_id for key in transaction.keys.load_all()] == ["a", "a-b", "b", "c"]

    run(database, scenario)


def test_a_key_completed_by_another_is_a_conflict(database: Path) -> None:
    async def scenario(store: Store) -> None:
        async with store.transaction() as transaction:
            transaction.keys.insert_pending(pending(), NOW)
            transaction.keys.complete(first_version())
        for late in (first_version("a"), first_version("never-begun")):
            with pytest.raises(SignerError) as caught:
                async with store.transaction() as transaction:
                    transaction.keys.complete(late)
            assert caught.value.reason is Reason.ETAG_MISMATCH

    run(database, scenario)


def test_only_a_pending_key_can_be_given_up(database: Path) -> None:
    async def scenario(store: Store) -> None:
        async with store.transaction() as transaction:
            keys = transaction.keys
            for key_id in ("a", "b"):
                keys.insert_pending(pending(key_id), NOW)
            keys.complete(first_version("a"))
            keys.delete_pending(VersionName(KeyName("b"), 1))
            for key_id in ("a", "b", "c"):
                with pytest.raises(SignerError):
                    keys.delete_pending(VersionName(KeyName(key_id), 1))
            assert [key.name.key_id for key in keys.load_all()] == ["a"]
            assert keys.load_pending() == []
            keys.insert_pending(pending("b"), NOW)
            assert keys.load_pending() == [pending("b")]

    run(database, scenario)


@pytest.mark.parametrize("twin", [pending("a"), replace(pending("b"), cka_id=CkaId(b"a"))])
def test_a_name_and_a_cka_id_are_taken_once(database: Path, twin: PendingKey) -> None:
    async def scenario(store: Store) -> None:
        async with store.transaction() as transaction:
            transaction.keys.insert_pending(pending("a"), NOW)
        with pytest.raises(SignerError) as caught:
            async with store.transaction() as transaction:
                transaction.keys.insert_pending(twin, NOW)
        assert caught.value.reason is Reason.AUDIT_UNAVAILABLE
        async with store.transaction() as transaction:
            assert transaction.keys.load_pending() == [pending("a")]

    run(database, scenario)


def test_an_unwanted_pair_is_known_once_until_it_is_gone(database: Path) -> None:
    async def scenario(store: Store) -> None:
        first, second = CkaId(b"\x00first"), CkaId(b"second")
        async with store.transaction() as transaction:
            transaction.unwanted_pairs.insert(first, P256, Instant(NOW + 1))
            transaction.unwanted_pairs.insert(second, P256, NOW)
            transaction.unwanted_pairs.insert(first, P256, NOW)
        async with store.transaction() as transaction:
            assert list(transaction.unwanted_pairs.load().items()) == [(second, P256), (first, P256)]
            transaction.unwanted_pairs.delete(first)
            transaction.unwanted_pairs.delete(first)
        async with store.transaction() as transaction:
            assert transaction.unwanted_pairs.load() == {second: P256}

    run(database, scenario)


def test_the_newest_policy_is_in_force_byte_for_byte(database: Path) -> None:
    async def scenario(store: Store) -> None:
        async with store.transaction() as transaction:
            assert transaction.policies.newest() is None
            for number in (1, 2, 10, 9):
                revision = PolicyRevision(number, b"# \xff\x00 %d" % number, "0" * 64, NOW, "cn:é", "why")
                transaction.policies.insert(revision)
        async with store.transaction() as transaction:
            assert transaction.policies.newest() == PolicyRevision(10, b"# \xff\x00 10", "0" * 64, NOW, "cn:é", "why")

    run(database, scenario)


def test_the_schema_the_migrations_make_is_the_one_the_code_speaks(database: Path) -> None:
    async def scenario(store: Store) -> None:
        for table in metadata.sorted_tables:
            found = {str(row[1]) for row in rows(database, f"PRAGMA table_info({table.name})")}
            assert found == {column.name for column in table.columns}
        indexes = {str(name) for (name,) in rows(database, "SELECT name FROM sqlite_master WHERE type = 'index'")}
        assert "sign_requests_authorized" in indexes

    run(database, scenario)
