"""A stream that ends takes back what was not decided yet."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import google_crc32c
import trustme

from hsmsigner.api.authn import Authenticator
from hsmsigner.api.convert import Converter
from hsmsigner.api.sign_stream import SignStream
from hsmsigner.pb import signing_pb2
from tests.builder import check_invariants, fresh_id, make_signer, record_types, usage_total


def frame(body: bytes) -> signing_pb2.StreamSignRequest:
    item = signing_pb2.SignRequest(
        name="keys/settlement-eu", request_id=fresh_id(), message=body, input_crc32c=google_crc32c.value(body)
    )
    return signing_pb2.StreamSignRequest(requests=[item])


def test_what_waits_when_a_stream_ends_is_neither_debited_nor_signed(tmp_path: Path) -> None:
    certificate = trustme.CA().issue_cert(common_name="engine")

    async def scenario() -> None:
        async with make_signer(tmp_path) as signer:
            await signer.create_key()
            before = record_types(signer.database)
            authenticator = Authenticator(lambda _: False, signer.clock)
            authenticator.enter({"x509_pem_cert": [certificate.cert_chain_pems[0].bytes()]})
            stream = SignStream(
                signer.signing, Converter(2**20, "SOFTWARE_TOKEN"), authenticator, asyncio.Event(), None
            )
            is_read = asyncio.Event()

            async def requests() -> AsyncIterator[signing_pb2.StreamSignRequest]:
                yield frame(b"pay")
                is_read.set()
                await asyncio.Event().wait()

            answers = stream.serve(requests())
            async with signer.store.transaction(), aclosing(answers):  # type: ignore[type-var]
                reading = asyncio.ensure_future(anext(answers))
                await is_read.wait()
                reading.cancel()
                await asyncio.wait([reading])
            await signer.sign(validate_only=True)

            assert record_types(signer.database) == before
            assert usage_total(signer.database, "burst") == 0

    asyncio.run(asyncio.wait_for(scenario(), 60))
    check_invariants(tmp_path / "store.sqlite3")
