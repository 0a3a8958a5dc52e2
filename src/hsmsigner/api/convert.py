"""Messages of the wire as values, and back. Every field is checked here, once."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import lru_cache

import google_crc32c
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from hsmsigner.api.status import LONGEST_DURATION_S, to_status
from hsmsigner.domain.algorithm import SigningAlgorithm, algorithm_named
from hsmsigner.domain.formats import OutputFormat
from hsmsigner.domain.instant import MICROSECONDS_PER_SECOND, Instant
from hsmsigner.domain.key import Key, KeyName, KeyOrigin, KeyState, KeyVersion, VersionName, parse_name
from hsmsigner.domain.policy import InputKind
from hsmsigner.domain.principal import Principal
from hsmsigner.domain.public_key import to_jwk, to_pem
from hsmsigner.domain.rotation import next_rotation_time
from hsmsigner.domain.rotation_policy import NO_ROTATION, RotationPolicy
from hsmsigner.domain.signing import check_labels, parse_request_id, signing_request
from hsmsigner.errors import Reason, SignerError, invalid_field
from hsmsigner.operations.jobs import Answer, Signed
from hsmsigner.operations.scheduler import primary_facts
from hsmsigner.operations.sign import Asked
from hsmsigner.pb import keys_pb2, resources_pb2, signing_pb2

MAX_PAGE = 1000
_MAX_TOKEN_DIGITS = 18
_DEFAULT_PAGE = 100
_NANOSECONDS = 10**9
# 9999-12-31T23:59:59Z, the last that google.protobuf.Timestamp knows.
_LAST_SECOND = 253_402_300_799

_FORMATS = {
    number: OutputFormat(name.removeprefix("OUTPUT_FORMAT_"))
    for name, number in signing_pb2.OutputFormat.items()
    if number
} | {signing_pb2.OUTPUT_FORMAT_UNSPECIFIED: OutputFormat.RAW}
_ALGORITHMS = {
    name.removeprefix("SIGNING_ALGORITHM_"): number for name, number in resources_pb2.SigningAlgorithm.items()
}
_ALGORITHM_NAMES = {number: name for name, number in _ALGORITHMS.items() if number}
_ORIGINS = {origin: resources_pb2.KeyOrigin.Value(f"KEY_ORIGIN_{origin.value}") for origin in KeyOrigin}

# The same few keys are named in every request.
_known_name = lru_cache(maxsize=4096)(parse_name)


class Converter:
    """Conversions that depend on the appliance's settings."""

    def __init__(self, message_limit: int, protection_level: str) -> None:
        self._message_limit = message_limit
        self._level = resources_pb2.ProtectionLevel.Value(f"PROTECTION_LEVEL_{protection_level}")

    def asked(self, item: signing_pb2.SignRequest, principal: Principal, where: str = "") -> Asked:
        """Check one SignRequest; `where` is put before field names, as in `requests[3].`.

        Raises:
            SignerError: INVALID_FIELD, CHECKSUM_MISMATCH, MESSAGE_TOO_LARGE.
        """
        name = _name(item.name, f"{where}name")
        request_id = parse_request_id(item.request_id, f"{where}request_id")
        given = item.WhichOneof("input")
        if given is None:
            raise invalid_field(f"{where}input", "must be a `message` or a `digest`")
        kind = InputKind(given)
        body = item.message if kind is InputKind.MESSAGE else item.digest
        self._check_body(item, body, where, given)
        output_format = _FORMATS.get(item.output_format)
        if output_format is None:
            raise invalid_field(f"{where}output_format", "is not a format this appliance knows")
        labels = item.labels
        if labels:
            check_labels(labels, f"{where}labels")
        request = signing_request(
            principal, request_id, name, kind=kind, body=body, output_format=output_format, labels=labels
        )
        return Asked(request, item.validate_only)

    def _check_body(self, item: signing_pb2.SignRequest, body: bytes, where: str, given: str) -> None:
        field, checksum = where + given, f"{where}input_crc32c"
        if not body:
            raise invalid_field(field, "must not be empty")
        if len(body) > self._message_limit:
            message = f"{field}: has {len(body)} bytes; this appliance takes up to {self._message_limit}"
            raise SignerError(Reason.MESSAGE_TOO_LARGE, message, field=field)
        if not item.HasField("input_crc32c"):
            raise invalid_field(checksum, f"is required: the CRC32C of `{field}`")
        if google_crc32c.value(body) != item.input_crc32c:
            message = f"{checksum}: does not fit `{field}`; it was damaged on the way, send it again"
            raise SignerError(Reason.CHECKSUM_MISMATCH, message, field=checksum)

    def fill_response(self, response: signing_pb2.SignResponse, signed: Signed, request_id: str) -> None:
        """Write a signature out, into the message where it stands: one that is put into another is copied, deeply."""
        response.name = str(signed.version.name)
        response.request_id = request_id
        response.signature = signed.signature
        response.signature_crc32c = google_crc32c.value(signed.signature)
        response.digest = signed.digest
        response.audit_sequence = signed.audit_sequence
        response.policy_revision = signed.policy_revision
        response.protection_level = self._level
        response.algorithm = _algorithm(signed.version.algorithm)
        response.authorize_time.FromMicroseconds(signed.authorize_time)
        response.origin = _origin(signed.version)

    def fill_result(self, result: signing_pb2.SignResult, answer: Answer, request_id: str) -> None:
        """Write one item's outcome out, as `fill_response` does."""
        result.request_id = request_id
        if isinstance(answer, SignerError):
            result.error.CopyFrom(to_status(answer))
        else:
            self.fill_response(result.response, answer, request_id)

    def key_version(self, version: KeyVersion) -> resources_pb2.KeyVersion:
        """Write a key version out."""
        return resources_pb2.KeyVersion(
            name=str(version.name),
            state=_state(version.state),
            algorithm=_algorithm(version.algorithm),
            protection_level=self._level,
            create_time=timestamp(version.create_time),
            cka_id=version.cka_id,
            local=version.local,
            always_sensitive=version.always_sensitive,
            never_extractable=version.never_extractable,
            origin=_origin(version),
            activate_time=maybe_timestamp(version.activate_time),
            deactivate_time=maybe_timestamp(version.deactivate_time),
            destroy_time=maybe_timestamp(version.destroy_time),
            signature_count=version.signature_count,
            certificate_chain=version.certificate_chain,
            etag=version.etag,
        )

    def key(self, key: Key) -> resources_pb2.Key:
        """Write a key out."""
        return resources_pb2.Key(
            name=str(key.name),
            algorithm=_algorithm(key.algorithm),
            create_time=timestamp(key.create_time),
            primary=self.key_version(key.primary),
            rotation_policy=_rotation_policy(key.rotation_policy),
            next_rotation_time=maybe_timestamp(next_rotation_time(key, primary_facts(key))),
            etag=key.etag,
        )


def public_key(version: KeyVersion) -> resources_pb2.PublicKey:
    """Write a public key out. The answer is shared: it is sent, never changed."""
    # Looked up by what is shown alone: with its count in it, a busy version would fill the cache by itself.
    shown = replace(
        version,
        # COMPROMISED is for good: a verifier must not lose sight of it when the version is destroyed.
        state=KeyState.COMPROMISED if version.is_compromised else version.state,
        destroy_time=None,
        scheduled_from=None,
        is_destroying=False,
        missing_time=None,
        signature_count=0,
        revision=0,
    )
    return _public_key(shown)


# With certificates and JWK, an entry may take 20 KiB.
@lru_cache(maxsize=4096)
def _public_key(version: KeyVersion) -> resources_pb2.PublicKey:
    jwk = to_jwk(version)
    return resources_pb2.PublicKey(
        name=str(version.name),
        algorithm=_algorithm(version.algorithm),
        state=_state(version.state),
        der=version.public_key,
        der_crc32c=google_crc32c.value(version.public_key),
        pem=to_pem(version.public_key),
        jwk="" if jwk is None else json.dumps(jwk, separators=(",", ":")),
        activate_time=maybe_timestamp(version.activate_time),
        deactivate_time=maybe_timestamp(version.deactivate_time),
        origin=_origin(version),
        certificate_chain=version.certificate_chain,
    )


def _name(text: str, field: str) -> KeyName | VersionName:
    try:
        # Kept by the text alone: with the field, each place in a batch would have an entry of its own.
        return _known_name(text)
    except SignerError:
        return parse_name(text, field)


def wanted_algorithm(request: keys_pb2.CreateKeyRequest | keys_pb2.AdoptKeyVersionRequest) -> SigningAlgorithm:
    """The algorithm that a request names.

    Raises:
        SignerError: ALGORITHM_NOT_SUPPORTED.
    """
    return algorithm_named(_ALGORITHM_NAMES.get(request.algorithm, f"number {request.algorithm}"))


def timestamp(instant: Instant) -> Timestamp:
    """An instant as google.protobuf.Timestamp."""
    message = Timestamp()
    message.FromMicroseconds(instant)
    return message


def maybe_timestamp(instant: Instant | None) -> Timestamp | None:
    """The same for a time that may be open; None leaves the field unset."""
    return None if instant is None else timestamp(instant)


def instant(message: Timestamp, field: str) -> Instant:
    """A time as it was sent; what is finer than a microsecond is dropped.

    Raises:
        SignerError: INVALID_FIELD.
    """
    if not (0 <= message.seconds <= _LAST_SECOND and 0 <= message.nanos < _NANOSECONDS):
        raise invalid_field(field, "must be a time between 1970 and 9999")
    return Instant(message.seconds * MICROSECONDS_PER_SECOND + message.nanos // 1000)


def duration_us(message: Duration, field: str) -> int:
    """A length of time as it was sent, in microseconds.

    Raises:
        SignerError: INVALID_FIELD.
    """
    if not (0 <= message.seconds <= LONGEST_DURATION_S and 0 <= message.nanos < _NANOSECONDS):
        raise invalid_field(field, "must be a length of time, not negative, at most 10,000 years")
    return message.seconds * MICROSECONDS_PER_SECOND + message.nanos // 1000


def page_size(size: int) -> int:
    """A page size as asked for, or the usual one (AIP-158).

    Raises:
        SignerError: INVALID_FIELD.
    """
    if not 0 <= size <= MAX_PAGE:
        raise invalid_field("page_size", f"must be 1-{MAX_PAGE}, or 0 for {_DEFAULT_PAGE}")
    return size or _DEFAULT_PAGE


def page_start(token: str) -> int:
    """The position a page token stands for; it is ours, so anything else was not taken from an answer.

    Raises:
        SignerError: INVALID_FIELD.
    """
    if not token:
        return 0
    if not (token.isascii() and token.isdigit() and len(token) <= _MAX_TOKEN_DIGITS):
        raise invalid_field("page_token", "must be empty or taken from the previous answer")
    return int(token)


def _rotation_policy(policy: RotationPolicy) -> resources_pb2.RotationPolicy | None:
    if policy == NO_ROTATION:
        return None
    return resources_pb2.RotationPolicy(
        rotation_period=_duration(policy.rotation_period_us),
        max_signatures=policy.max_signatures,
        before_certificate_expiry=_duration(policy.before_certificate_expiry_us),
        publish_lead=_duration(policy.publish_lead_us),
        overlap=_duration(policy.overlap_us),
        destroy_after=_duration(policy.destroy_after_us),
    )


def _duration(length_us: int) -> Duration | None:
    seconds, micros = divmod(length_us, MICROSECONDS_PER_SECOND)
    return Duration(seconds=seconds, nanos=micros * 1000) if length_us else None


def _state(state: KeyState) -> resources_pb2.KeyState.ValueType:
    return resources_pb2.KeyState.Value(f"KEY_STATE_{state.value}")


def _origin(version: KeyVersion) -> resources_pb2.KeyOrigin.ValueType:
    return _ORIGINS[version.origin]


def _algorithm(algorithm: SigningAlgorithm) -> resources_pb2.SigningAlgorithm.ValueType:
    return _ALGORITHMS[algorithm.name]
