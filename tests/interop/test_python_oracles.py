"""Our proofs, notes and tiles, read by libraries that nobody here wrote: tlog-scales, and sigstore's Merkle code."""

from __future__ import annotations

import random
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from sigstore._internal.merkle import verify_merkle_inclusion
from sigstore._internal.rekor.checkpoint import SignedCheckpoint
from sigstore._internal.trust import Keyring
from sigstore._utils import KeyID
from sigstore.errors import VerificationError
from sigstore_models.common.v1 import PublicKey, PublicKeyDetails
from tlog_scales import cli as tlog_cli
from tlog_scales.backend import LocalBackend
from tlog_scales.reader import TilesReader
from tlog_scales.signing import Vkey, VkeySet
from tlog_scales.tlog import (
    Checkpoint,
    ConsistencyProof,
    ConsistencyProofInvalid,
    InclusionProof,
    InclusionProofInvalid,
)

from hsmsigner.cli.export_folder import ExportFolder
from hsmsigner.transparency.checkpoint import CheckpointBody
from hsmsigner.transparency.merkle import leaf_hash
from hsmsigner.transparency.note import KeyType, NoteKey, add_lines, write_note
from tests.witness.twins import ORIGIN, LogTwin, WitnessTwin

SMALL = LogTwin.of(60)
# More than one full tile of level 1 and a part of another; made once.
LARGE = LogTwin.of(66_000)


def tlog_scales_says(index: int, size: int, proof: list[bytes], record: bytes, root: bytes) -> bool:
    try:
        InclusionProof(index, size, proof).check(leaf_hash(record), root)
    except InclusionProofInvalid:
        return False
    return True


def sigstore_says(index: int, size: int, proof: list[bytes], record: bytes, root: bytes) -> bool:
    inner = SimpleNamespace(
        inclusion_proof=SimpleNamespace(log_index=index, tree_size=size, hashes=proof, root_hash=root),
        canonicalized_body=record,
    )
    try:
        verify_merkle_inclusion(cast("Any", SimpleNamespace(_inner=inner)))
    except VerificationError:
        return False
    return True


def growth_holds(old: int, new: int, proof: list[bytes], old_root: bytes, new_root: bytes) -> bool:
    try:
        ConsistencyProof(old, new, proof).check(old_root, new_root)
    except ConsistencyProofInvalid:
        return False
    return True


def altered(proof: list[bytes]) -> Iterator[list[bytes]]:
    """The proof with one bit of one hash turned over, without its last hash, with one more, and in another order."""
    for place in range(len(proof)):
        wrong = bytes([proof[place][0] ^ 1]) + proof[place][1:]
        yield [*proof[:place], wrong, *proof[place + 1 :]]
    if proof:
        yield proof[:-1]
    yield [*proof, bytes(32)]
    if len(set(proof)) > 1:
        yield proof[::-1]


@pytest.mark.parametrize("oracle", [tlog_scales_says, sigstore_says])
@pytest.mark.parametrize("size", range(1, 61))
def test_every_inclusion_proof_of_a_small_tree_holds_and_no_altered_one(oracle: Any, size: int) -> None:
    tree, root = SMALL.tree(size), SMALL.tree(size).root()
    for index in range(size):
        proof, record = tree.inclusion_proof(index), SMALL.records[index]
        assert oracle(index, size, proof, record, root)
        assert not oracle(index, size, proof, record + b"!", root)
        for wrong in altered(proof):
            assert not oracle(index, size, wrong, record, root)


@pytest.mark.parametrize("size", range(61))
def test_every_consistency_proof_of_a_small_tree_holds_and_no_altered_one(size: int) -> None:
    tree, root = SMALL.tree(size), SMALL.tree(size).root()
    for old in range(size + 1):
        proof, old_root = tree.consistency_proof(old), SMALL.tree(old).root()
        assert growth_holds(old, size, proof, old_root, root)
        if 0 < old < size:
            assert not growth_holds(old, size, proof, bytes(32), root)
            assert not any(growth_holds(old, size, wrong, old_root, root) for wrong in altered(proof))


def test_proofs_of_large_trees_hold() -> None:
    chance = random.Random(5)  # noqa: S311 - the same sizes each time
    for _ in range(60):
        size = chance.randint(61, len(LARGE.records))
        tree, index, old = LARGE.tree(size), chance.randrange(size), chance.randint(1, size - 1)
        root, proof, growth = tree.root(), tree.inclusion_proof(index), tree.consistency_proof(old)
        for oracle in (tlog_scales_says, sigstore_says):
            assert oracle(index, size, proof, LARGE.records[index], root)
            assert not oracle(index, size, proof, LARGE.records[index - 1], root)
        assert growth_holds(old, size, growth, LARGE.tree(old).root(), root)
        assert not growth_holds(old, size, growth, LARGE.tree(old - 1).root(), root)


def test_tlog_scales_reads_and_verifies_our_checkpoint_and_its_cosignature() -> None:
    ours, witness = SMALL.checkpoint(), WitnessTwin()
    note = add_lines(ours.note, [witness.line(ours.note)])

    read = Checkpoint.from_text(note)

    assert (read.origin, read.size, read.root_hash) == (ORIGIN, ours.size, ours.root_hash)
    assert read.serialize() == note
    for vkey in (SMALL.key.vkey, witness.key.vkey):
        assert Vkey.from_string(vkey).serialize() == vkey  # type: ignore[no-untyped-call]  # as that library has it
        read.verify(Vkey.from_string(vkey))
    other = Checkpoint.from_text(note.replace("\n60\n", "\n61\n"))
    for vkey in (SMALL.key.vkey, witness.key.vkey):
        with pytest.raises(InvalidSignature):
            other.verify(Vkey.from_string(vkey))
    assert not VkeySet(Vkey.from_string(WitnessTwin("other.example/w").key.vkey)).verify(read.signatures, read)


@pytest.mark.parametrize("key_type", [KeyType.ED25519, KeyType.ECDSA])
def test_sigstore_reads_and_verifies_our_checkpoint(key_type: KeyType) -> None:
    note, key, keyring = signed_by_type(key_type)

    read = SignedCheckpoint.from_text(note)

    assert (read.checkpoint.origin, read.checkpoint.log_size) == (ORIGIN, 60)
    assert read.checkpoint.log_hash == SMALL.tree().root().hex()
    read.signed_note.verify(cast("Any", keyring), KeyID(key.key_id))
    with pytest.raises(VerificationError):
        SignedCheckpoint.from_text(note.replace("\n60\n", "\n61\n")).signed_note.verify(
            cast("Any", keyring), KeyID(key.key_id)
        )


def signed_by_type(key_type: KeyType) -> tuple[str, NoteKey, Keyring]:
    """A note of a log whose token has Ed25519, or has not."""
    if key_type is KeyType.ED25519:
        public = SMALL.signer.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return SMALL.checkpoint().note, SMALL.key, Keyring([known(public, "PKIX_ED25519")])
    signer, text = ec.generate_private_key(ec.SECP256R1()), CheckpointBody(ORIGIN, 60, SMALL.tree().root()).text
    public = signer.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    key = NoteKey(ORIGIN, KeyType.ECDSA, public)
    note = write_note(text, [key.line(signer.sign(text.encode(), ec.ECDSA(hashes.SHA256())))])
    return note, key, Keyring([known(public, "PKIX_ECDSA_P256_SHA_256")])


def known(public: bytes, details: str) -> PublicKey:
    return PublicKey(raw_bytes=b64encode(public), key_details=PublicKeyDetails[details])


@pytest.mark.parametrize("size", [1, 255, 256, 257, 3000])
def test_tlog_scales_reads_the_tiles_of_an_export(tmp_path: Path, size: int) -> None:
    exported(tmp_path, size)
    reader = TilesReader(LocalBackend(tmp_path))

    assert reader.get_checkpoint().root_hash == reader.calculate_root_hash() == LARGE.tree(size).root()
    for index in {0, size // 2, size - 1}:
        assert reader.get_inclusion_proof(index, size).node_hashes == LARGE.tree(size).inclusion_proof(index)
    for old in {1, size // 2 or 1, size}:
        assert reader.get_consistency_proof(old, size).node_hashes == LARGE.tree(size).consistency_proof(old)


def test_a_receipt_is_what_tlog_scales_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """docs/log-format.md, "Receipt": but for the record itself, which tlog-scales leaves out."""
    exported(tmp_path, 3000)
    arguments = tlog_cli.build_parser().parse_args(["gen-proof", str(tmp_path), "1234"])

    tlog_cli.cmd_gen_proof(arguments)

    checkpoint = LARGE.checkpoint(3000)
    assert capsys.readouterr().out == receipt(1234, LARGE.tree(3000).inclusion_proof(1234), checkpoint.note)


def receipt(index: int, proof: list[bytes], note: str) -> str:
    lines = ["c2sp.org/tlog-proof@v1", f"index {index}", *(b64encode(one).decode() for one in proof), "", note]
    return "\n".join(lines)


def exported(folder: Path, size: int) -> None:
    export = ExportFolder(folder)
    export.write_segment(0, enumerate(LARGE.records[:size]))
    assert export.write_upper_tiles(size) == LARGE.tree(size).root()
    export.finish(ORIGIN, 0, size, LARGE.checkpoint(size).note, {})
