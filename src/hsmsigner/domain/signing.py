"""One request to sign, as a value: checked, hashed, and with the identity that makes a retry recognisable."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import NewType

from msgspec import Struct

from hsmsigner.domain.formats import OutputFormat
from hsmsigner.domain.key import KeyName, VersionName
from hsmsigner.domain.policy import InputKind, Right
from hsmsigner.domain.principal import Principal
from hsmsigner.errors import invalid_field

RequestId = NewType("RequestId", str)

MAX_LABELS = 16
MAX_LABEL_NAME = 63
MAX_LABEL_VALUE = 255
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII)


def parse_request_id(text: str, field: str = "request_id") -> RequestId:
    """Read a UUID in its 36-character form (RFC 9562 section 4); letters fold to lower case.

    Raises:
        SignerError: INVALID_FIELD.
    """
    folded = text.lower()
    if not _UUID.fullmatch(folded):
        raise invalid_field(field, "must be a UUID, as in 3b241101-e2bb-4255-8caf-4136c566a962, fresh for each request")
    return RequestId(folded)


def check_labels(labels: Mapping[str, str], field: str = "labels") -> None:
    """Check number and lengths of labels.

    Raises:
        SignerError: INVALID_FIELD.
    """
    if len(labels) > MAX_LABELS:
        raise invalid_field(field, f"must be at most {MAX_LABELS}")
    for name, value in labels.items():
        if not 1 <= len(name) <= MAX_LABEL_NAME or len(value) > MAX_LABEL_VALUE:
            raise invalid_field(
                field, f"keys must have 1-{MAX_LABEL_NAME} characters, values at most {MAX_LABEL_VALUE}"
            )


class SigningRequest(Struct, frozen=True, gc=False):
    """Who wants what signed. `body` is the message or the digest; `body_sha256` its SHA-256, for the log."""

    principal: Principal
    request_id: RequestId
    name: KeyName | VersionName
    kind: InputKind
    body: bytes
    output_format: OutputFormat
    labels: tuple[tuple[str, str], ...]
    body_sha256: bytes

    @property
    def key(self) -> KeyName:
        """The key, whether it or one of its versions was named."""
        return self.name.key if isinstance(self.name, VersionName) else self.name

    @property
    def right(self) -> Right:
        """The right this request needs: blind signing is a right of its own."""
        return Right.SIGN if self.kind is InputKind.MESSAGE else Right.SIGN_DIGEST

    def fingerprint(self) -> bytes:
        """SHA-256 of all that the answer depends on: two requests with one id and one fingerprint are one request."""
        parts = [str(self.name), self.kind.value, self.output_format.value]
        parts += [part for label in self.labels for part in label]
        lengths = ",".join(map(str, map(len, parts)))
        return hashlib.sha256("|".join([lengths, *parts]).encode() + self.body_sha256).digest()


def signing_request(
    principal: Principal,
    request_id: RequestId,
    name: KeyName | VersionName,
    *,
    kind: InputKind,
    body: bytes,
    output_format: OutputFormat,
    labels: Mapping[str, str],
) -> SigningRequest:
    """Build a request; labels are put in order, so that their order on the wire is no difference."""
    ordered = tuple(sorted(labels.items())) if labels else ()
    digest = hashlib.sha256(body).digest()
    return SigningRequest(principal, request_id, name, kind, body, output_format, ordered, digest)
