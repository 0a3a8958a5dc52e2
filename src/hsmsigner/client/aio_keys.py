"""KeyService and the public-key calls for asyncio programs; `AsyncSignerClient` has them all."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import TypeVar

import grpc
from google.protobuf.timestamp_pb2 import Timestamp

from hsmsigner.client.channel import Connection, change, change_until_answered, read
from hsmsigner.client.key_set import KeySetCache
from hsmsigner.client.request_id import fresh_request_id
from hsmsigner.client.rotation import RotationPolicy, duration
from hsmsigner.client.values import algorithm_number, check_public_key
from hsmsigner.pb import keys_pb2, resources_pb2, signing_pb2

_ADMIN_TIMEOUT_S = 30.0
_GENERATE_TIMEOUT_S = 120.0
_ADMIN_PATIENCE_S = 3.0
_PAGE_SIZE = 1000

_Request = TypeVar("_Request")
_Response = TypeVar("_Response")


class AsyncKeyCalls:
    """Keys and versions. `reason` is for the record; with `etag`, only what was seen is changed.

    Changes without a `request_id` are made once: after `OutcomeUnknown`, look before you repeat.
    """

    _connection: Connection

    async def get_public_key(self, name: str) -> resources_pb2.PublicKey:
        """The public key of a key's primary or of a version, its checksum checked."""
        request = signing_pb2.GetPublicKeyRequest(name=name)
        return check_public_key(await read(self._connection.signing.GetPublicKey, request, _ADMIN_TIMEOUT_S))

    async def list_public_keys(self) -> AsyncIterator[resources_pb2.PublicKey]:
        """Every public key the caller may see."""
        page_token = ""
        while True:
            page = await self.public_key_page(page_token)
            for key in page.public_keys:
                yield key
            if not (page_token := page.next_page_token):
                return

    async def public_key_page(self, page_token: str = "") -> signing_pb2.ListPublicKeysResponse:
        """One page of them, with its JWK Set."""
        request = signing_pb2.ListPublicKeysRequest(page_size=_PAGE_SIZE, page_token=page_token)
        page = await read(self._connection.signing.ListPublicKeys, request, _ADMIN_TIMEOUT_S)
        for key in page.public_keys:
            check_public_key(key)
        return page

    def watch_keys(self) -> KeySetCache:
        """Every public key the caller may see, kept current by the server; a context manager."""
        return KeySetCache(lambda: self._connection.keys.WatchKeys(keys_pb2.WatchKeysRequest()))

    async def create_key(
        self, key_id: str, algorithm: str, *, request_id: str | None = None, validate_only: bool = False
    ) -> resources_pb2.Key:
        """Generate a key pair on the token; `key_id` without `keys/`, `algorithm` as in ECDSA_P256_SHA256."""
        request = keys_pb2.CreateKeyRequest(
            key_id=key_id,
            algorithm=algorithm_number(algorithm),
            request_id=request_id or fresh_request_id(),
            validate_only=validate_only,
        )
        return await _generate(self._connection.keys.CreateKey, request)

    async def get_key(self, name: str) -> resources_pb2.Key:
        """A key and its primary version."""
        return await read(self._connection.keys.GetKey, keys_pb2.GetKeyRequest(name=name), _ADMIN_TIMEOUT_S)

    async def list_keys(self) -> AsyncIterator[resources_pb2.Key]:
        """The keys over which the caller has any right, by name."""
        page_token = ""
        while True:
            page = await self.key_page(page_token)
            for key in page.keys:
                yield key
            if not (page_token := page.next_page_token):
                return

    async def key_page(self, page_token: str = "") -> keys_pb2.ListKeysResponse:
        """One page of them."""
        request = keys_pb2.ListKeysRequest(page_size=_PAGE_SIZE, page_token=page_token)
        return await read(self._connection.keys.ListKeys, request, _ADMIN_TIMEOUT_S)

    async def list_key_versions(self, name: str) -> AsyncIterator[resources_pb2.KeyVersion]:
        """The versions of one key, oldest first."""
        page_token = ""
        while True:
            page = await self.key_version_page(name, page_token)
            for version in page.versions:
                yield version
            if not (page_token := page.next_page_token):
                return

    async def key_version_page(self, name: str, page_token: str = "") -> keys_pb2.ListKeyVersionsResponse:
        """One page of them."""
        request = keys_pb2.ListKeyVersionsRequest(parent=name, page_size=_PAGE_SIZE, page_token=page_token)
        return await read(self._connection.keys.ListKeyVersions, request, _ADMIN_TIMEOUT_S)

    async def set_rotation_policy(
        self, name: str, policy: RotationPolicy, *, reason: str, etag: str = ""
    ) -> resources_pb2.Key:
        """Replace a key's rotation policy; an empty one ends automatic rotation."""
        request = keys_pb2.UpdateKeyRequest(name=name, rotation_policy=policy.message(), etag=etag, reason=reason)
        return await change(self._connection.keys.UpdateKey, request, _ADMIN_TIMEOUT_S)

    async def rotate_key(
        self,
        name: str,
        *,
        reason: str,
        activate_time: datetime | None = None,
        overlap: timedelta | None = None,
        request_id: str | None = None,
        etag: str = "",
        validate_only: bool = False,
    ) -> resources_pb2.Key:
        """Make the next version; it takes over at once, or at `activate_time` (with a time zone)."""
        request = keys_pb2.RotateKeyRequest(
            name=name,
            request_id=request_id or fresh_request_id(),
            activate_time=None if activate_time is None else _timestamp(activate_time),
            overlap=None if overlap is None else duration(overlap),
            reason=reason,
            etag=etag,
            validate_only=validate_only,
        )
        return await _generate(self._connection.keys.RotateKey, request)

    async def activate_key_version(self, name: str, *, reason: str, etag: str = "") -> resources_pb2.KeyVersion:
        """PRE_ACTIVATION to ACTIVE; the version becomes the primary."""
        return await _change_version(self._connection.keys.ActivateKeyVersion, name, reason, etag)

    async def suspend_key_version(self, name: str, *, reason: str, etag: str = "") -> resources_pb2.KeyVersion:
        """ACTIVE to SUSPENDED: it signs nothing until resumed."""
        return await _change_version(self._connection.keys.SuspendKeyVersion, name, reason, etag)

    async def resume_key_version(self, name: str, *, reason: str, etag: str = "") -> resources_pb2.KeyVersion:
        """SUSPENDED to ACTIVE."""
        return await _change_version(self._connection.keys.ResumeKeyVersion, name, reason, etag)

    async def deactivate_key_version(self, name: str, *, reason: str, etag: str = "") -> resources_pb2.KeyVersion:
        """To DEACTIVATED, for good."""
        return await _change_version(self._connection.keys.DeactivateKeyVersion, name, reason, etag)

    async def mark_key_version_compromised(self, name: str, *, reason: str, etag: str = "") -> resources_pb2.KeyVersion:
        """To COMPROMISED, for good; verifiers see it in every key set."""
        return await _change_version(self._connection.keys.MarkKeyVersionCompromised, name, reason, etag)

    async def schedule_destroy_key_version(
        self, name: str, *, reason: str, delay: timedelta | None = None, etag: str = ""
    ) -> resources_pb2.KeyVersion:
        """To DESTROY_SCHEDULED; it can be restored for `delay` (the server's 30 days unless told)."""
        request = keys_pb2.ScheduleDestroyKeyVersionRequest(
            name=name, etag=etag, reason=reason, delay=None if delay is None else duration(delay)
        )
        return await change(self._connection.keys.ScheduleDestroyKeyVersion, request, _ADMIN_TIMEOUT_S)

    async def restore_key_version(self, name: str, *, reason: str, etag: str = "") -> resources_pb2.KeyVersion:
        """DESTROY_SCHEDULED back to the state before."""
        return await _change_version(self._connection.keys.RestoreKeyVersion, name, reason, etag)

    async def destroy_key_version(self, name: str, *, reason: str, etag: str = "") -> resources_pb2.KeyVersion:
        """DESTROY_SCHEDULED to DESTROYED: the pair is destroyed on the token. Not to be undone."""
        return await _change_version(self._connection.keys.DestroyKeyVersion, name, reason, etag)

    async def adopt_key_version(
        self,
        name: str,
        algorithm: str,
        cka_id: bytes,
        *,
        reason: str,
        allow_unprotected: bool = False,
        request_id: str | None = None,
    ) -> resources_pb2.KeyVersion:
        """Take a pair that is on the token already as a key's next version, or as a new key's first."""
        request = keys_pb2.AdoptKeyVersionRequest(
            name=name,
            algorithm=algorithm_number(algorithm),
            cka_id=cka_id,
            allow_unprotected=allow_unprotected,
            request_id=request_id or fresh_request_id(),
            reason=reason,
        )
        return await _generate(self._connection.keys.AdoptKeyVersion, request)


async def _generate(method: grpc.aio.UnaryUnaryMultiCallable[_Request, _Response], request: _Request) -> _Response:
    # Long enough for a slow device to make an RSA key; somebody waits at a terminal, so not for a dead server.
    return await change_until_answered(method, request, _GENERATE_TIMEOUT_S, broken_for_s=_ADMIN_PATIENCE_S)


async def _change_version(
    method: grpc.aio.UnaryUnaryMultiCallable[keys_pb2.ChangeKeyVersionRequest, resources_pb2.KeyVersion],
    name: str,
    reason: str,
    etag: str,
) -> resources_pb2.KeyVersion:
    request = keys_pb2.ChangeKeyVersionRequest(name=name, etag=etag, reason=reason)
    return await change(method, request, _ADMIN_TIMEOUT_S)


def _timestamp(time: datetime) -> Timestamp:
    message = Timestamp()
    message.FromDatetime(time)
    return message
