"""What goes into a signing call and what comes out: requests ready for the wire, answers checked before use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import google_crc32c
from msgspec import Struct

from hsmsigner.client.errors import (
    ChecksumMismatch,
    InvalidRequest,
    SigningClientError,
    Violation,
    error_of_status,
    too_large,
)
from hsmsigner.client.request_id import fresh_request_id
from hsmsigner.pb import resources_pb2, signing_pb2

# The most that any appliance may be configured to take; more would break the stream it shares with other calls.
_LARGEST_INPUT = 64 * 2**20
# What every server reads in one message; more only where it is configured to take larger messages to sign.
REQUEST_BYTES = 8 * 2**20
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def _short_names(enum: Any) -> dict[int, str]:
    """Names of a wire enum without their common prefix: `SIGNING_ALGORITHM_ED25519` is ED25519."""
    prefix = enum.DESCRIPTOR.values_by_number[0].name.removesuffix("UNSPECIFIED")
    return {value.number: value.name.removeprefix(prefix) for value in enum.DESCRIPTOR.values}


_ALGORITHM_NAMES = _short_names(resources_pb2.SigningAlgorithm)
_ORIGIN_NAMES = _short_names(resources_pb2.KeyOrigin)
_PROTECTION_NAMES = _short_names(resources_pb2.ProtectionLevel)
_FORMATS = {name: number for number, name in _short_names(signing_pb2.OutputFormat).items() if number}
_ALGORITHMS = {name: number for number, name in _ALGORITHM_NAMES.items() if number}


class SignItem(Struct, frozen=True):
    """One item of a batch; exactly one of `message` and `digest`. Without `request_id` a fresh one is made."""

    name: str
    message: bytes | None = None
    digest: bytes | None = None
    request_id: str | None = None
    output_format: str = "RAW"
    labels: Mapping[str, str] | None = None
    validate_only: bool = False


class Signature(Struct, frozen=True, gc=False):
    """A signature whose checksum, `request_id` and key name were checked.

    `name` is the version that signed; `digest` is empty for EdDSA; `signature` is empty after `validate_only`.
    `audit_sequence` is the number of its `sign.completed` record.
    """

    name: str
    request_id: str
    signature: bytes
    digest: bytes
    audit_sequence: int
    policy_revision: int
    algorithm: str
    protection_level: str
    authorize_time: datetime
    # ADOPTED: the key was not made by the appliance.
    origin: str = "GENERATED"


class PreparedRequest(Struct, frozen=True, gc=False):
    """A request as it is sent, however often: `frame` is a StreamSignRequest that holds it alone.

    Serialized protobuf messages may be concatenated, which appends their repeated fields; so frames of many requests
    are made by joining, and sending again costs nothing. BatchSignRequest has its requests under the same number.
    """

    name: str
    request_id: str
    frame: bytes

    @property
    def is_large(self) -> bool:
        """Whether a server may not read it at all; then it goes alone, or it would end the stream for all others."""
        return len(self.frame) > REQUEST_BYTES

    def message(self) -> signing_pb2.SignRequest:
        """The request itself, for a call of its own."""
        return signing_pb2.StreamSignRequest.FromString(self.frame).requests[0]


def prepare(item: SignItem) -> PreparedRequest:
    """Check an item as far as the client can, and write it for the wire.

    Raises:
        InvalidRequest: not exactly one input, too large for any server, an unknown format, or a wrong type.
    """
    if (item.message is None) == (item.digest is None):
        raise _invalid("message", "give exactly one of message and digest")
    if item.message is not None and len(item.message) > _LARGEST_INPUT:
        size = len(item.message)
        raise too_large(f"message: {size} bytes, at most {_LARGEST_INPUT}", size, _LARGEST_INPUT)
    output_format = _FORMATS.get(item.output_format)
    if output_format is None:
        raise _invalid("output_format", f"must be one of {', '.join(_FORMATS)}")
    request_id = item.request_id or fresh_request_id()
    frame = signing_pb2.StreamSignRequest()
    try:
        request = frame.requests.add(
            name=item.name,
            request_id=request_id,
            message=item.message,
            digest=item.digest,
            input_crc32c=google_crc32c.value(item.message if item.digest is None else item.digest),
            output_format=output_format,
            validate_only=item.validate_only,
        )
        if item.labels:
            request.labels.update(item.labels)
        # Deterministic, so that equal requests are equal bytes, map fields included.
        return PreparedRequest(item.name, request_id, frame.SerializeToString(deterministic=True))
    except (TypeError, ValueError) as error:
        raise _invalid("request", f"cannot be written: {error}") from error


def batch_call(requests: Sequence[PreparedRequest], *, all_or_nothing: bool) -> signing_pb2.BatchSignRequest:
    """One call for all of them.

    Raises:
        InvalidRequest: MESSAGE_TOO_LARGE; nothing was sent.
    """
    call = signing_pb2.BatchSignRequest.FromString(b"".join([request.frame for request in requests]))
    call.all_or_nothing = all_or_nothing
    size = call.ByteSize()
    # A single one cannot be sent in parts; whether it is too large, the server knows.
    if len(requests) > 1 and size > REQUEST_BYTES:
        raise too_large(
            f"the batch has {size} bytes; a batch takes up to {REQUEST_BYTES}, send it in parts", size, REQUEST_BYTES
        )
    return call


def read_result(request: PreparedRequest, result: signing_pb2.SignResult) -> Signature | SigningClientError:
    """Read one outcome of a stream or batch; an answer that fails its checks is a `ChecksumMismatch`."""
    match result.WhichOneof("outcome"):
        case "response":
            return read_response(request, result.response)
        case "error":
            return error_of_status(result.error)
        case _:
            return ChecksumMismatch("UNREADABLE_ANSWER", f"the answer to {request.request_id} holds no outcome")


def read_response(request: PreparedRequest, response: signing_pb2.SignResponse) -> Signature | ChecksumMismatch:
    """Check that the answer is whole and belongs to this request, and read it."""
    signature = response.signature
    name = response.name
    if google_crc32c.value(signature) != response.signature_crc32c:
        return ChecksumMismatch("CHECKSUM_MISMATCH", f"the signature for {request.request_id} was damaged on the way")
    if response.request_id != request.request_id:
        return ChecksumMismatch(
            "UNREADABLE_ANSWER", f"asked as {request.request_id}, answered as {response.request_id[:64]!r}"
        )
    if name != request.name and not name.startswith(request.name + "/versions/"):
        return ChecksumMismatch("UNREADABLE_ANSWER", f"asked for {request.name}, signed by {name[:128]!r}")
    decided = response.authorize_time
    return Signature(
        name=name,
        request_id=request.request_id,
        signature=signature,
        digest=response.digest,
        audit_sequence=response.audit_sequence,
        policy_revision=response.policy_revision,
        algorithm=algorithm_name(response.algorithm),
        protection_level=_PROTECTION_NAMES.get(response.protection_level, "UNSPECIFIED"),
        authorize_time=_EPOCH + timedelta(seconds=decided.seconds, microseconds=decided.nanos // 1000),
        origin=_ORIGIN_NAMES.get(response.origin, "UNSPECIFIED"),
    )


def check_public_key(key: resources_pb2.PublicKey) -> resources_pb2.PublicKey:
    """Give the key back if it is whole.

    Raises:
        ChecksumMismatch: damaged on the way.
    """
    if google_crc32c.value(key.der) != key.der_crc32c:
        raise ChecksumMismatch("CHECKSUM_MISMATCH", f"the public key of {key.name} was damaged on the way")
    return key


def algorithm_name(number: int) -> str:
    """The short name of a wire value, as in ECDSA_P256_SHA256; a newer server's may be only a number."""
    return _ALGORITHM_NAMES.get(number) or str(number)


def algorithm_number(name: str) -> resources_pb2.SigningAlgorithm.ValueType:
    """The wire value of a short name.

    Raises:
        InvalidRequest: no such algorithm; names those there are.
    """
    number = _ALGORITHMS.get(name)
    if number is None:
        raise InvalidRequest(
            "ALGORITHM_NOT_SUPPORTED", f"algorithm {name[:80]!r} is not known; use one of {', '.join(_ALGORITHMS)}"
        )
    return number  # type: ignore[return-value] # a number of the enum, from its own descriptor


def _invalid(field: str, message: str) -> InvalidRequest:
    return InvalidRequest(
        "INVALID_FIELD", f"{field}: {message}", metadata={"field": field}, violations=(Violation(field, message),)
    )
