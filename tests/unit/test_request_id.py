"""Request ids that the client makes up: unique, and alike where the time is."""

from __future__ import annotations

import time
import uuid
from itertools import pairwise

from hsmsigner.client.request_id import fresh_request_id
from hsmsigner.domain.signing import parse_request_id


def test_a_fresh_id_is_a_uuid_of_version_7_that_the_appliance_takes() -> None:
    text = fresh_request_id()
    parsed = uuid.UUID(text)
    assert (parsed.version, parsed.variant, str(parsed)) == (7, uuid.RFC_4122, text)
    assert parse_request_id(text) == text


def test_a_fresh_id_begins_with_the_time_in_milliseconds() -> None:
    before = time.time_ns() // 1_000_000
    milliseconds = uuid.UUID(fresh_request_id()).int >> 80
    assert before <= milliseconds <= time.time_ns() // 1_000_000


def test_all_74_random_bits_of_an_id_differ_from_one_to_the_next() -> None:
    ids = [uuid.UUID(fresh_request_id()).int for _ in range(200)]
    random_bits = (1 << 76) - 1 & ~(0b11 << 62)
    seen_set, seen_clear = 0, 0
    for number in ids:
        seen_set |= number & random_bits
        seen_clear |= ~number & random_bits
    assert random_bits.bit_count() == 74
    assert seen_set == seen_clear == random_bits


def test_ids_of_a_moment_begin_alike() -> None:
    prefixes = [fresh_request_id()[:8] for _ in range(1000)]
    # 65 seconds share the first eight digits; a thousand ids are made in far less.
    assert sum(one != other for one, other in pairwise(prefixes)) <= 1
