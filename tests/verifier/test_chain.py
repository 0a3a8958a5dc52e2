from __future__ import annotations

import json
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hsmsigner.verifier import ChainVerifier, VerificationError, verify_records

Record = tuple[int, bytes]


def time_of(sequence: int) -> str:
    return f"2026-11-20T10:{sequence // 60 % 60:02}:{sequence % 60:02}.000000Z"


def chain_of(size: int, **overrides: object) -> list[Record]:
    """A valid log; an override `time_3="..."` replaces one field of one record before it is hashed."""
    records: list[Record] = []
    previous_hash = "0" * 64
    for sequence in range(size):
        fields = {
            "sequence": sequence,
            "time": time_of(sequence),
            "type": "sign.completed",
            "previous_hash": previous_hash,
        }
        for name in fields:
            if f"{name}_{sequence}" in overrides:
                fields[name] = overrides[f"{name}_{sequence}"]
        record = json.dumps(fields, separators=(",", ":")).encode()
        records.append((sequence, record))
        previous_hash = sha256(b"\x00" + record).hexdigest()
    return records


def mth(leaves: list[bytes]) -> bytes:
    """The recursive definition of RFC 6962 section 2.1, word for word, as an oracle."""
    if not leaves:
        return sha256(b"").digest()
    if len(leaves) == 1:
        return sha256(b"\x00" + leaves[0]).digest()
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    return sha256(b"\x01" + mth(leaves[:split]) + mth(leaves[split:])).digest()


def root_of(records: list[Record]) -> bytes:
    return mth([record for _, record in records])


def fault_of(records: list[Record], size: int, root: bytes) -> VerificationError:
    with pytest.raises(VerificationError) as caught:
        verify_records(records, size, root)
    return caught.value


@pytest.mark.parametrize("size", [0, 1, 2, 3, 4, 5, 7, 8, 9, 31, 32, 33, 100])
def test_untouched_log_passes_with_the_root_of_rfc_6962(size: int) -> None:
    records = chain_of(size)

    verify_records(records, size, root_of(records))


def test_root_of_the_known_vectors_of_rfc_6962() -> None:
    # The inputs and roots that the certificate-transparency reference implementation tests itself with.
    leaves = [bytes.fromhex(text) for text in ("", "00", "10", "2021", "3031", "40414243")]
    roots = {
        1: "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        2: "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        3: "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        6: "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    }
    verifier = ChainVerifier()

    for count, leaf in enumerate(leaves, start=1):
        verifier._edge.add(sha256(b"\x00" + leaf).digest())
        if count in roots:
            assert verifier.root.hex() == roots[count]


def test_missing_record_is_named() -> None:
    records = chain_of(10)

    error = fault_of(records[:4] + records[5:], 10, root_of(records))

    assert (error.fault, error.sequence) == ("gap", 4)
    assert "record 4 is missing" in str(error)


def test_swapped_records_are_found_even_under_their_own_numbers() -> None:
    records = chain_of(10)
    records[3], records[4] = (3, records[4][1]), (4, records[3][1])

    error = fault_of(records, 10, root_of(records))

    assert (error.fault, error.sequence) == ("sequence", 3)


def test_repeated_record_is_found() -> None:
    records = chain_of(5)

    error = fault_of([*records[:3], records[2], *records[3:]], 5, root_of(records))

    assert (error.fault, error.sequence) == ("order", 2)


def test_changed_record_breaks_the_link_of_the_next() -> None:
    records = chain_of(10)
    root = root_of(records)
    records[6] = (6, records[6][1].replace(b"sign.completed", b"sign.denied"))

    error = fault_of(records, 10, root)

    assert (error.fault, error.sequence) == ("previous_hash", 7)
    assert "record 6" in str(error)


def test_changed_last_record_gives_another_root() -> None:
    records = chain_of(10)
    root = root_of(records)
    records[9] = (9, records[9][1].replace(b"sign.completed", b"sign.denied"))

    assert fault_of(records, 10, root).fault == "root"


def test_rewritten_history_gives_another_root() -> None:
    root = root_of(chain_of(10))

    assert fault_of(chain_of(10, type_2="sign.denied"), 10, root).fault == "root"


def test_truncated_log_is_found() -> None:
    records = chain_of(10)

    error = fault_of(records[:7], 10, root_of(records))

    assert (error.fault, error.sequence) == ("truncated", 7)


def test_extended_log_is_found() -> None:
    records = chain_of(10)

    error = fault_of(records, 7, root_of(records[:7]))

    assert (error.fault, error.sequence) == ("extended", 7)


def test_log_that_does_not_begin_at_the_beginning_is_found() -> None:
    assert fault_of(chain_of(3, previous_hash_0="ab" * 32), 3, b"").fault == "previous_hash"
    assert fault_of(chain_of(3)[1:], 3, b"").fault == "gap"


def test_time_that_runs_backwards_is_found() -> None:
    records = chain_of(5, time_3="2026-11-20T09:59:59.000000Z")

    error = fault_of(records, 5, root_of(records))

    assert (error.fault, error.sequence) == ("time", 3)
    assert "runs backwards" in str(error)


@pytest.mark.parametrize("time", [None, 7, "", "2026-11-20T10:00:00Z", "2026-11-20 10:00:00.000000Z", "tomorrow"])
def test_time_in_another_form_is_found(time: object) -> None:
    assert fault_of(chain_of(3, time_1=time), 3, b"").fault == "time"


@pytest.mark.parametrize(
    "record",
    [b"", b"\xff\xfe", b"{", b"[]", b"7", b'{"sequence":0,"sequence":0}', b"[" * 100_000, b"null"],
)
def test_unparsable_record_is_found(record: bytes) -> None:
    error = fault_of([(0, record)], 1, b"")

    assert (error.fault, error.sequence) == ("unparsable", 0)


@pytest.mark.parametrize("sequence", [None, "1", True, 2, -1])
def test_record_that_says_another_number_is_found(sequence: object) -> None:
    assert fault_of(chain_of(3, sequence_1=sequence), 3, b"").fault == "sequence"


@given(size=st.integers(1, 20), data=st.data())
def test_any_flipped_bit_is_found(size: int, data: st.DataObject) -> None:
    records = chain_of(size)
    root = root_of(records)
    victim = data.draw(st.integers(0, size - 1))
    record = bytearray(records[victim][1])
    position = data.draw(st.integers(0, len(record) - 1))
    record[position] ^= 1 << data.draw(st.integers(0, 7))
    records[victim] = (victim, bytes(record))

    error = fault_of(records, size, root)

    assert error.sequence in {victim, victim + 1, None}


@given(size=st.integers(2, 12), order=st.randoms(use_true_random=False))
def test_any_other_order_is_found(size: int, order: object) -> None:
    records = chain_of(size)
    root = root_of(records)
    shuffled = list(records)
    order.shuffle(shuffled)  # type: ignore[attr-defined] # hypothesis gives a random.Random

    if shuffled == records:
        verify_records(shuffled, size, root)
    else:
        fault_of(shuffled, size, root)
