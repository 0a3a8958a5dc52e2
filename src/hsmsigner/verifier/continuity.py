"""Walks the continuity statements of a key, offline, from a public key that is trusted to today's.

    verify_continuity(document, trusted_pem)

`document` is what `hsmsigner keys continuity` wrote: `{"key": ..., "statements": [{"signed_by_old": JWS,
"signed_by_new": JWS}, ...]}`, oldest first. Both signatures of a statement are over the same payload, which names the
old and the new version with their public keys. A version is trusted when a trusted one vouches for it, and only with
exactly the key it vouches for. Nothing but the trusted key is believed before a signature over it was checked.
"""

from __future__ import annotations

import re
from base64 import urlsafe_b64encode
from dataclasses import dataclass
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_public_key,
    load_pem_public_key,
)

from hsmsigner.verifier.chain import VerificationError
from hsmsigner.verifier.jws import Jws, JwsError, decode_base64url, parse_json, parse_jws

STATEMENT_TYPE = "hsmsigner-continuity-v1"
# The appliance lets no caller sign a message that begins so; without this any signature over raw bytes would do.
_BEGINNING = urlsafe_b64encode(f'{{"typ":"{STATEMENT_TYPE}",'.encode())
_MOST_STATEMENTS = 100_000
_NAME = re.compile(r"(?P<key>keys/[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?)/versions/(?P<number>[1-9][0-9]{0,8})", re.ASCII)
# Fixed width in UTC, so that the order of the texts is the order of the times.
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", re.ASCII)
_FIELDS = {"type", "key", "old", "new", "create_time", "activate_time"}
_SIDE_FIELDS = {"name", "algorithm", "public_key"}


@dataclass(frozen=True, slots=True)
class TrustedVersion:
    """A version that the chain leads to. `public_key` is SubjectPublicKeyInfo in DER."""

    name: str
    number: int
    algorithm: str
    public_key: bytes

    @property
    def pem(self) -> str:
        """The public key in PEM."""
        key = load_der_public_key(self.public_key)
        return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode("ascii")


@dataclass(frozen=True, slots=True)
class Continuity:
    """What a good chain says: the key's name, every version it leads to in order, and from when each one signs.

    `activate_times` has an entry for each version but the first.
    """

    key: str
    versions: tuple[TrustedVersion, ...]
    activate_times: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Statement:
    key: str
    old: TrustedVersion
    new: TrustedVersion
    create_time: str
    activate_time: str
    by_old: Jws
    by_new: Jws


def verify_continuity(document: bytes, trusted_pem: bytes, current_pem: bytes | None = None) -> Continuity:
    """Check every statement, and that they lead from the trusted public key to (if it is given) the current one.

    Raises:
        VerificationError: the first fault. `fault` is `trusted`, `unparsable`, `other_key`, `order`, `time`,
            `algorithm`, `header`, `payload`, `first_key`, `broken_link`, `signature_old`, `signature_new` or
            `truncated`; `sequence` is the statement's place in the document from 0, None where it is none of them.
    """
    trusted = _load_pem(trusted_pem, "the trusted public key")
    key, statements = _read_document(document)
    _check_order(statements)
    newest = statements[-1].new
    begin = next((index for index, item in enumerate(statements) if item.old.public_key == trusted), None)
    if begin is None and newest.public_key == trusted:
        begin = len(statements)
    if begin is None:
        raise VerificationError(
            "first_key", None, f"no statement of {key} begins at the trusted public key: it is another key's, or"
            " the statement that it signed was removed"
        )  # fmt: skip
    first = statements[begin].old if begin < len(statements) else newest
    reached, activate_times = {first.name: first}, []
    for index, statement in enumerate(statements):
        if index < begin:
            # Older than what is trusted: nothing is concluded from it, but it must be sound in itself.
            _check_signatures(index, statement)
            continue
        _check_link(index, statement, reached)
        _check_signatures(index, statement)
        reached[statement.new.name] = statement.new
        activate_times.append(statement.activate_time)
    if current_pem is not None and newest.public_key != _load_pem(current_pem, "the current public key"):
        raise VerificationError(
            "truncated", None, f"the chain ends at {newest.name}, which is not the current public key: newer"
            " statements are missing, or the current key is not this key's"
        )  # fmt: skip
    return Continuity(key, tuple(reached.values()), tuple(activate_times))


def _check_order(statements: list[_Statement]) -> None:
    newest, create_time = 0, ""
    for index, statement in enumerate(statements):
        if statement.new.number <= statement.old.number or statement.new.number <= newest:
            raise VerificationError(
                "order", index, f"statement {index} leads to {statement.new.name} after version {newest} was reached:"
                " repeated or moved"
            )  # fmt: skip
        if statement.create_time < create_time or statement.activate_time < statement.create_time:
            raise VerificationError(
                "time", index, f"time runs backwards at statement {index}: made {statement.create_time} after"
                f" {create_time or 'nothing'}, in force {statement.activate_time}"
            )  # fmt: skip
        if statement.old.algorithm != statement.new.algorithm:
            raise VerificationError(
                "algorithm", index, f"statement {index} leads from {statement.old.algorithm} to"
                f" {statement.new.algorithm}; a key keeps its algorithm"
            )  # fmt: skip
        newest, create_time = statement.new.number, statement.create_time


def _check_link(index: int, statement: _Statement, reached: dict[str, TrustedVersion]) -> None:
    vouching = reached.get(statement.old.name)
    if vouching is None:
        raise VerificationError(
            "broken_link", index, f"statement {index} begins at {statement.old.name}, which no statement before it"
            " leads to: one was removed"
        )  # fmt: skip
    if vouching != statement.old:
        raise VerificationError(
            "broken_link", index, f"statement {index} begins at {statement.old.name} with another public key or"
            " algorithm than the one that was vouched for"
        )  # fmt: skip


def _check_signatures(index: int, statement: _Statement) -> None:
    for side, version, jws in (("old", statement.old, statement.by_old), ("new", statement.new, statement.by_new)):
        try:
            is_good = jws.verifies(version.algorithm, version.public_key)
        except JwsError as error:
            raise VerificationError("algorithm", index, f"statement {index}, {version.name}: {error}") from error
        if not is_good:
            raise VerificationError(
                f"signature_{side}", index, f"statement {index} is not signed by {version.name}, its {side} version:"
                " the signature or what it covers was changed"
            )  # fmt: skip


def _read_document(document: bytes) -> tuple[str, list[_Statement]]:
    try:
        fields = parse_json(document)
    except JwsError as error:
        raise VerificationError("unparsable", None, f"the file cannot be read: {error}") from error
    key, items = fields.get("key"), fields.get("statements")
    if not isinstance(key, str) or not isinstance(items, list):
        raise VerificationError("unparsable", None, "the file must hold `key` and a list of `statements`")
    if not 1 <= len(items) <= _MOST_STATEMENTS:
        raise VerificationError(
            "truncated" if not items else "unparsable", None, f"the file holds {len(items)} statements, and must hold"
            f" 1-{_MOST_STATEMENTS}: a key that was never rotated has none"
        )  # fmt: skip
    statements = [_read_statement(index, item) for index, item in enumerate(items)]
    for index, statement in enumerate(statements):
        if statement.key != key:
            raise VerificationError(
                "other_key", index, f"statement {index} is of {statement.key}, and the file of {key}"
            )
    return key, statements


def _read_statement(index: int, item: Any) -> _Statement:
    texts = [item.get(f"signed_by_{side}") for side in ("old", "new")] if isinstance(item, dict) else []
    try:
        by_old, by_new = (parse_jws(text) for text in texts)
        payload = parse_json(by_old.payload)
        old, new = (_read_version(payload, side) for side in ("old", "new"))
        statement = _Statement(
            str(payload.get("key")), old, new, _time(payload, "create_time"), _time(payload, "activate_time"),
            by_old, by_new
        )  # fmt: skip
    except (JwsError, ValueError) as error:
        raise VerificationError("unparsable", index, f"statement {index} cannot be read: {error}") from error
    if by_old.payload != by_new.payload:
        raise VerificationError(
            "payload", index, f"the two signatures of statement {index} are not over the same payload"
        )
    if payload["type"] != STATEMENT_TYPE:
        raise VerificationError("payload", index, f"statement {index} is of another type: {payload['type']!r}")
    for version, jws in ((old, by_old), (new, by_new)):
        if jws.header != {"typ": STATEMENT_TYPE, "alg": jws.header.get("alg"), "kid": version.name}:
            raise VerificationError(
                "header", index, f"statement {index} has a header that is not of {version.name}: {jws.header}"
            )
        if not jws.signing_input.startswith(_BEGINNING):
            raise VerificationError("header", index, f"statement {index} has a header that no appliance writes")
    return statement


def _read_version(payload: dict[str, Any], side: str) -> TrustedVersion:
    if set(payload) != _FIELDS:
        raise ValueError(f"its payload must have exactly {', '.join(sorted(_FIELDS))}")
    fields = payload[side]
    if not isinstance(fields, dict) or set(fields) != _SIDE_FIELDS:
        raise ValueError(f"`{side}` must have exactly {', '.join(sorted(_SIDE_FIELDS))}")
    match = _NAME.fullmatch(str(fields["name"]))
    if match is None or match["key"] != payload["key"]:
        raise ValueError(f"`{side}.name` is {fields['name']!r}, which is no version of {payload['key']!r}")
    public_key = _load_der(decode_base64url(str(fields["public_key"])))
    return TrustedVersion(str(fields["name"]), int(match["number"]), str(fields["algorithm"]), public_key)


def _time(payload: dict[str, Any], name: str) -> str:
    time = payload[name]
    if not isinstance(time, str) or not _TIME.fullmatch(time):
        raise ValueError(f"`{name}` is no time: {time!r}")
    return time


def _load_pem(pem: bytes, what: str) -> bytes:
    try:
        return load_pem_public_key(pem).public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise VerificationError("trusted", None, f"{what} cannot be read as PEM: {error}") from error


def _load_der(der: bytes) -> bytes:
    """The key as `cryptography` writes it, so that one key is one sequence of bytes."""
    try:
        return load_der_public_key(der).public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    except UnsupportedAlgorithm as error:
        raise ValueError(f"its public key is of a kind that is not known: {error}") from error
