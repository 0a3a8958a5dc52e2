"""SigningService, but for its stream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

from hsmsigner.api.authn import Authenticator, current_principal
from hsmsigner.api.convert import Converter, page_size, page_start, public_key
from hsmsigner.api.interceptors import Context
from hsmsigner.api.sign_stream import SignStream
from hsmsigner.domain.key import parse_name
from hsmsigner.domain.policy import Right
from hsmsigner.domain.public_key import to_jwks
from hsmsigner.errors import SignerError, invalid_field
from hsmsigner.operations.keys import Keys
from hsmsigner.operations.sign import MAX_BATCH, Asked, Signing, check_distinct
from hsmsigner.pb import resources_pb2, signing_pb2, signing_pb2_grpc


class SigningServicer(signing_pb2_grpc.SigningServiceServicer):
    """Checks, asks the use case, writes the answer out."""

    def __init__(
        self,
        signing: Signing,
        keys: Keys,
        converter: Converter,
        authenticator: Authenticator,
        draining: asyncio.Event,
    ) -> None:
        self._signing = signing
        self._keys = keys
        self._converter = converter
        self._authenticator = authenticator
        self._draining = draining

    async def Sign(self, request: signing_pb2.SignRequest, context: Context) -> signing_pb2.SignResponse:
        asked = self._converter.asked(request, current_principal())
        signed = await self._signing.sign(asked, deadline_of(context))
        response = signing_pb2.SignResponse()
        self._converter.fill_response(response, signed, request.request_id)
        return response

    async def BatchSign(self, request: signing_pb2.BatchSignRequest, context: Context) -> signing_pb2.BatchSignResponse:
        if not 1 <= len(request.requests) <= MAX_BATCH:
            raise invalid_field("requests", f"must have 1-{MAX_BATCH} items, not {len(request.requests)}")
        check_distinct([item.request_id for item in request.requests])
        checked = self._check_items(request.requests)
        good = [item for item in checked if isinstance(item, Asked)]
        if request.all_or_nothing:
            for item in checked:
                if isinstance(item, SignerError):
                    raise item
        answers = iter(
            await self._signing.sign_batch(good, deadline_of(context), all_or_nothing=request.all_or_nothing)
        )
        response = signing_pb2.BatchSignResponse()
        for sent, asked in zip(request.requests, checked, strict=True):
            answer = asked if isinstance(asked, SignerError) else next(answers)
            self._converter.fill_result(response.results.add(), answer, sent.request_id)
        return response

    async def StreamSign(
        self, request_iterator: AsyncIterator[signing_pb2.StreamSignRequest], context: Context
    ) -> AsyncIterator[signing_pb2.StreamSignResponse]:
        parts = self._signing, self._converter, self._authenticator, self._draining
        async for frame in SignStream(*parts, deadline_of(context)).serve(request_iterator):
            yield frame

    async def GetPublicKey(self, request: signing_pb2.GetPublicKeyRequest, context: Context) -> resources_pb2.PublicKey:
        return public_key(self._keys.public_key(current_principal(), parse_name(request.name)))

    async def ListPublicKeys(
        self, request: signing_pb2.ListPublicKeysRequest, context: Context
    ) -> signing_pb2.ListPublicKeysResponse:
        size, start = page_size(request.page_size), page_start(request.page_token)
        keys = self._keys.list(current_principal(), Right.GET_PUBLIC_KEY)
        versions = [version for key in keys for version in key.versions if version.is_in_key_sets]
        page = versions[start : start + size]
        return signing_pb2.ListPublicKeysResponse(
            public_keys=map(public_key, page),
            jwks=to_jwks(page),
            next_page_token=str(start + size) if start + size < len(versions) else "",
        )

    def _check_items(self, items: Sequence[signing_pb2.SignRequest]) -> list[Asked | SignerError]:
        principal = current_principal()
        checked: list[Asked | SignerError] = []
        for index, item in enumerate(items):
            try:
                checked.append(self._converter.asked(item, principal, f"requests[{index}]."))
            except SignerError as error:
                checked.append(error)
        return checked


def deadline_of(context: Context) -> float | None:
    """The RPC's deadline on the event loop's clock."""
    # The stubs say that every RPC has a deadline; a client need not set one.
    remaining: float | None = context.time_remaining()
    return None if remaining is None else asyncio.get_running_loop().time() + remaining
