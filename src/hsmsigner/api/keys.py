"""KeyService."""

from __future__ import annotations

from hsmsigner.api.authn import current_principal
from hsmsigner.api.convert import Converter, page_size, page_start, wanted_algorithm
from hsmsigner.api.interceptors import Context
from hsmsigner.domain.key import KeyName
from hsmsigner.domain.signing import parse_request_id
from hsmsigner.operations.keys import Keys
from hsmsigner.pb import keys_pb2, keys_pb2_grpc, resources_pb2


class KeyServicer(keys_pb2_grpc.KeyServiceServicer):
    """Checks, asks the use case, writes the answer out."""

    def __init__(self, keys: Keys, converter: Converter) -> None:
        self._keys = keys
        self._converter = converter

    async def CreateKey(self, request: keys_pb2.CreateKeyRequest, context: Context) -> resources_pb2.Key:
        key = await self._keys.create(
            current_principal(),
            KeyName.from_id(request.key_id),
            wanted_algorithm(request),
            parse_request_id(request.request_id),
            validate_only=request.validate_only,
        )
        return self._converter.key(key)

    async def GetKey(self, request: keys_pb2.GetKeyRequest, context: Context) -> resources_pb2.Key:
        return self._converter.key(await self._keys.get_counted(current_principal(), KeyName.parse(request.name)))

    async def ListKeys(self, request: keys_pb2.ListKeysRequest, context: Context) -> keys_pb2.ListKeysResponse:
        size, start = page_size(request.page_size), page_start(request.page_token)
        keys = self._keys.list(current_principal())
        return keys_pb2.ListKeysResponse(
            keys=map(self._converter.key, keys[start : start + size]),
            next_page_token=str(start + size) if start + size < len(keys) else "",
        )

    async def ListKeyVersions(
        self, request: keys_pb2.ListKeyVersionsRequest, context: Context
    ) -> keys_pb2.ListKeyVersionsResponse:
        size, start = page_size(request.page_size), page_start(request.page_token)
        name = KeyName.parse(request.parent, "parent")
        versions = (await self._keys.get_counted(current_principal(), name)).versions
        return keys_pb2.ListKeyVersionsResponse(
            versions=map(self._converter.key_version, versions[start : start + size]),
            next_page_token=str(start + size) if start + size < len(versions) else "",
        )
