"""What a token that was cut off while it made a pair may have left: it must not be in the way of the next try."""

from __future__ import annotations

import os
import struct
from threading import Lock
from typing import Any

import pytest
from pkcs11.constants import Attribute, ObjectClass
from pkcs11.exceptions import DeviceMemory

from hsmsigner.domain.key import CkaId
from hsmsigner.errors import Reason, SignerError
from hsmsigner.operations.ports import SignStatus
from hsmsigner.token.client import TokenClient
from hsmsigner.token.hollow import remove_hollow_keys
from hsmsigner.token.keys import TokenFullError, TokenKeys
from hsmsigner.token.mechanism import MECHANISMS
from tests.signing_tasks import P256, TestKey
from tests.softhsm import SoftHsm
from tests.token.other_client import ask_token

LABEL = "keys/settlement-eu/versions/2"
# Kinds of attributes in the files of SoftHSM's objects.
_BOOLEAN, _ULONG, _BYTES = 1, 2, 3


def leave_half(hsm: SoftHsm, lost: str, label: str) -> CkaId:
    cka_id = CkaId(os.urandom(8))
    ask_token(hsm, "plant", cka_id=cka_id.hex(), extractable=False, object_label=label)
    assert ask_token(hsm, "destroy_half", cka_id=cka_id.hex(), half=lost) == 1
    return cka_id


def test_a_public_half_of_ours_is_replaced_by_a_whole_pair(hsm: SoftHsm) -> None:
    cka_id = leave_half(hsm, "PRIVATE_KEY", LABEL)

    async def use(client: TokenClient) -> None:
        assert await client.find(cka_id, P256, is_sure=False) is None

        pair = await client.generate(cka_id, LABEL, P256)

        assert await client.find(cka_id, P256) == pair
        (outcome,) = await client.sign([TestKey(cka_id, pair, P256).task(b"message")])
        assert outcome.status is SignStatus.SIGNED

    with hsm.start_worker():
        hsm.ask(use)


@pytest.mark.parametrize(("lost", "label"), [("PRIVATE_KEY", "of somebody else"), ("PUBLIC_KEY", LABEL)])
def test_any_other_half_is_left_alone_and_the_refusal_says_that_nothing_was_made(
    hsm: SoftHsm, lost: str, label: str
) -> None:
    cka_id = leave_half(hsm, lost, label)

    async def use(client: TokenClient) -> None:
        connection = client._connection
        with pytest.raises(SignerError) as refused:
            await client.generate(cka_id, LABEL, P256)

        assert refused.value.reason is Reason.TOKEN_REFUSED
        assert client._connection is connection

    with hsm.start_worker():
        hsm.ask(use)
    assert ask_token(hsm, "destroy", cka_id=cka_id.hex()) == 1


def hollow_out(hsm: SoftHsm, object_class: ObjectClass, dropped: frozenset[Attribute]) -> None:
    """Take attributes out of the file of an object: so SoftHSM leaves it when it is killed before it writes them."""
    wanted = struct.pack(">QQQ", Attribute.CLASS, _ULONG, object_class)
    (path,) = [path for path in hsm.state.glob("token/tokens/*/*-*.object") if wanted in path.read_bytes()]
    content = path.read_bytes()
    kept, position = content[:8], 8
    while position < len(content):
        attribute, kind = struct.unpack_from(">QQ", content, position)
        size = {_BOOLEAN: 1, _ULONG: 8}.get(kind)
        if size is None:
            (count,) = struct.unpack_from(">Q", content, position + 16)
            size = 8 + count * (1 if kind == _BYTES else 8)
        if attribute not in dropped:
            kept += content[position : position + 16 + size]
        position += 16 + size
    path.write_bytes(kept)


_KEY_ITSELF = frozenset({Attribute.VALUE, Attribute.EC_PARAMS, Attribute.EC_POINT, Attribute.LOCAL})


@pytest.mark.parametrize("also", [frozenset(), frozenset({Attribute.ID, Attribute.LABEL})], ids=["named", "nameless"])
@pytest.mark.parametrize("half", [ObjectClass.PRIVATE_KEY, ObjectClass.PUBLIC_KEY])
def test_a_key_object_that_a_kill_left_without_a_key_is_gone_after_the_next_start(
    hsm: SoftHsm, half: ObjectClass, also: frozenset[Attribute]
) -> None:
    cka_id = CkaId(os.urandom(8))
    ask_token(hsm, "plant", cka_id=cka_id.hex(), extractable=False, object_label=LABEL)
    hollow_out(hsm, half, _KEY_ITSELF | also)
    if half is ObjectClass.PUBLIC_KEY:
        # SoftHSM begins the private key when the public one is whole.
        ask_token(hsm, "destroy_half", cka_id=cka_id.hex(), half="PRIVATE_KEY")
    assert ask_token(hsm, "count_keys") == (2 if half is ObjectClass.PRIVATE_KEY else 1)

    async def use(client: TokenClient) -> None:
        assert await client.find(cka_id, P256) is None
        pair = await client.generate(cka_id, LABEL, P256)
        (outcome,) = await client.sign([TestKey(cka_id, pair, P256).task(b"message")])
        assert outcome.status is SignStatus.SIGNED

    with hsm.start_worker():
        hsm.ask(use)
    assert ask_token(hsm, "count_keys") == 2


def test_keys_of_others_with_neither_name_nor_id_stay(hsm: SoftHsm) -> None:
    ask_token(hsm, "plant", cka_id="", extractable=True)

    with hsm.start_worker():
        pass

    assert ask_token(hsm, "count_keys") == 2


class OddKey:
    """A key of a type that the binding does not know."""

    def __getitem__(self, attribute: Attribute) -> object:
        raise ValueError(f"77 is not a valid {attribute.name}")


class OddToken:
    """A session with a SoftHSM token that has one."""

    binding = property(lambda self: self)
    token = property(lambda self: self)
    manufacturer_id = "SoftHSM project"

    def find_all(self, _template: object) -> list[OddKey]:
        return [OddKey()]


def test_a_key_that_the_binding_cannot_read_does_not_keep_the_worker_from_starting(
    caplog: pytest.LogCaptureFixture,
) -> None:
    remove_hollow_keys(OddToken())  # type: ignore[arg-type] # a twin
    assert caplog.messages == [
        f"a {half} object is left as it is: ValueError" for half in ("PRIVATE_KEY", "PUBLIC_KEY")
    ]


class FullToken:
    """A session with a token that has no room for a private key; it keeps the public half, as some do."""

    def __init__(self) -> None:
        self.publics: list[FullToken.Half] = []
        self.binding = self

    class Half(dict[Any, Any]):
        """A public key object."""

        def __init__(self, token: FullToken, label: str) -> None:
            super().__init__()
            self.token, self.label = token, label

        def __missing__(self, _attribute: object) -> str:
            return self.label

        def destroy(self) -> None:
            self.token.publics.remove(self)

    def find(self, object_class: ObjectClass, _cka_id: bytes) -> list[FullToken.Half]:
        return list(self.publics) if object_class is ObjectClass.PUBLIC_KEY else []

    def check_alive(self) -> None:
        """It is."""

    def generate_keypair(self, *_arguments: object, **options: object) -> None:
        self.publics.append(FullToken.Half(self, str(options["label"])))
        raise DeviceMemory


def test_a_full_token_is_told_from_one_that_failed_and_keeps_no_half() -> None:
    token = FullToken()

    with pytest.raises(TokenFullError):
        TokenKeys(Lock()).generate(token, b"id", LABEL, MECHANISMS[P256.name])  # type: ignore[arg-type] # a twin

    assert token.publics == []
