"""The methods of KeyService that change keys: rotation, states, adoption."""

from __future__ import annotations

from google.protobuf.duration_pb2 import Duration

from hsmsigner.api.authn import current_principal
from hsmsigner.api.convert import Converter, duration_us, instant, wanted_algorithm
from hsmsigner.api.interceptors import Context
from hsmsigner.domain.key import CkaId, KeyName, VersionName, parse_name
from hsmsigner.domain.lifecycle import Verb
from hsmsigner.domain.rotation_policy import RotationPolicy
from hsmsigner.domain.signing import parse_request_id
from hsmsigner.errors import invalid_field
from hsmsigner.operations.adoption import Adoption, WantedAdoption
from hsmsigner.operations.key_changes import Cause, WantedRotation
from hsmsigner.operations.lifecycle import Lifecycle
from hsmsigner.operations.rotation import Rotations
from hsmsigner.pb import keys_pb2, resources_pb2

_LARGEST_COUNT = 2**63 - 1


class LifecycleMethods:
    """Checks, asks the use case, writes the answer out."""

    _lifecycle: Lifecycle
    _rotations: Rotations
    _adoption: Adoption
    _converter: Converter

    async def UpdateKey(self, request: keys_pb2.UpdateKeyRequest, context: Context) -> resources_pb2.Key:
        key = await self._lifecycle.set_rotation_policy(
            current_principal(),
            KeyName.parse(request.name),
            _rotation_policy(request.rotation_policy),
            _cause(request.reason),
            etag=request.etag,
        )
        return self._converter.key(key)

    async def RotateKey(self, request: keys_pb2.RotateKeyRequest, context: Context) -> resources_pb2.Key:
        wanted = WantedRotation(
            instant(request.activate_time, "activate_time") if request.HasField("activate_time") else None,
            duration_us(request.overlap, "overlap") if request.HasField("overlap") else None,
            request.etag,
        )
        key = await self._rotations.rotate(
            current_principal(),
            KeyName.parse(request.name),
            wanted,
            _cause(request.reason, parse_request_id(request.request_id)),
            validate_only=request.validate_only,
        )
        return self._converter.key(key)

    async def ActivateKeyVersion(
        self, request: keys_pb2.ChangeKeyVersionRequest, context: Context
    ) -> resources_pb2.KeyVersion:
        return await self._change(Verb.ACTIVATE, request)

    async def SuspendKeyVersion(
        self, request: keys_pb2.ChangeKeyVersionRequest, context: Context
    ) -> resources_pb2.KeyVersion:
        return await self._change(Verb.SUSPEND, request)

    async def ResumeKeyVersion(
        self, request: keys_pb2.ChangeKeyVersionRequest, context: Context
    ) -> resources_pb2.KeyVersion:
        return await self._change(Verb.RESUME, request)

    async def DeactivateKeyVersion(
        self, request: keys_pb2.ChangeKeyVersionRequest, context: Context
    ) -> resources_pb2.KeyVersion:
        return await self._change(Verb.DEACTIVATE, request)

    async def MarkKeyVersionCompromised(
        self, request: keys_pb2.ChangeKeyVersionRequest, context: Context
    ) -> resources_pb2.KeyVersion:
        return await self._change(Verb.MARK_COMPROMISED, request)

    async def ScheduleDestroyKeyVersion(
        self, request: keys_pb2.ScheduleDestroyKeyVersionRequest, context: Context
    ) -> resources_pb2.KeyVersion:
        delay_us = duration_us(request.delay, "delay") if request.HasField("delay") else None
        return await self._change(Verb.SCHEDULE_DESTROY, request, delay_us)

    async def RestoreKeyVersion(
        self, request: keys_pb2.ChangeKeyVersionRequest, context: Context
    ) -> resources_pb2.KeyVersion:
        return await self._change(Verb.RESTORE, request)

    async def DestroyKeyVersion(
        self, request: keys_pb2.ChangeKeyVersionRequest, context: Context
    ) -> resources_pb2.KeyVersion:
        return await self._change(Verb.DESTROY, request)

    async def AdoptKeyVersion(
        self, request: keys_pb2.AdoptKeyVersionRequest, context: Context
    ) -> resources_pb2.KeyVersion:
        version = await self._adoption.adopt(
            current_principal(),
            KeyName.parse(request.name),
            WantedAdoption(wanted_algorithm(request), CkaId(request.cka_id), request.allow_unprotected),
            _cause(request.reason, parse_request_id(request.request_id)),
        )
        return self._converter.key_version(version)

    async def _change(
        self,
        verb: Verb,
        request: keys_pb2.ChangeKeyVersionRequest | keys_pb2.ScheduleDestroyKeyVersionRequest,
        delay_us: int | None = None,
    ) -> resources_pb2.KeyVersion:
        name = parse_name(request.name)
        if not isinstance(name, VersionName):
            raise invalid_field("name", "must name a version, as in keys/settlement-eu/versions/2")
        version = await self._lifecycle.change(
            verb, current_principal(), name, _cause(request.reason), etag=request.etag, delay_us=delay_us
        )
        return self._converter.key_version(version)


def _cause(reason: str, request_id: str = "") -> Cause:
    return Cause(current_principal(), reason, request_id)


def _rotation_policy(message: resources_pb2.RotationPolicy) -> RotationPolicy:
    def length(name: str) -> int:
        field: Duration = getattr(message, name)
        found = duration_us(field, f"rotation_policy.{name}") if message.HasField(name) else 0  # type: ignore[arg-type]
        if name == "destroy_after" and message.HasField("destroy_after") and not found:
            raise invalid_field("rotation_policy.destroy_after", "must not be zero; leave it unset for never")
        return found

    if message.max_signatures > _LARGEST_COUNT:
        raise invalid_field("rotation_policy.max_signatures", f"must be at most {_LARGEST_COUNT}")
    return RotationPolicy(
        rotation_period_us=length("rotation_period"),
        max_signatures=message.max_signatures,
        before_certificate_expiry_us=length("before_certificate_expiry"),
        publish_lead_us=length("publish_lead"),
        overlap_us=length("overlap"),
        destroy_after_us=length("destroy_after"),
    )
