"""`log-key.json`: from the version of the log's key that is trusted to its other versions."""

from __future__ import annotations

import json

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key

from hsmsigner.verifier.continuity import verify_continuity
from hsmsigner.verifier.fault import VerificationError, shown
from hsmsigner.verifier.note import VerificationKey, parse_vkey
from hsmsigner.verifier.record import parse_object
from hsmsigner.verifier.trust import Trust

LOG_KEY = "keys/audit-log"
_MOST_VERSIONS = 10_000


def follow(trust: Trust, document: bytes) -> Trust:
    """The trust with every version of the log's key that the statements lead to from a trusted one.

    Raises:
        VerificationError: `log_key` or `format`.
    """
    vkeys, has_statements = _read(trust, document)
    trusted = [index for index, key in enumerate(vkeys) if key in trust.keys]
    if not trusted:
        raise VerificationError(
            "log_key", None, "log-key.json does not have the trusted key among the versions of the log's key"
        )
    later = vkeys[trusted[0] :]
    reached = {key.der for key in trust.keys}
    for index in trusted if has_statements else ():
        reached |= _reached(document, vkeys[index])
    unreached = [key for key in later if key.der not in reached]
    if unreached:
        raise VerificationError(
            "log_key",
            None,
            f"no statement in log-key.json leads from the trusted key to the version {unreached[0].key_id.hex()}; when"
            " it is known that the old version could not vouch for it, trust that version too",
        )
    # Both sign each other, so that the chain is as good backwards as it is forwards.
    leads_here = bool(trusted[0]) and has_statements and later[0].der in _reached(document, vkeys[0])
    return trust.following(later, vkeys[: trusted[0]] if leads_here else ())


def _reached(document: bytes, first: VerificationKey) -> set[bytes]:
    """The versions that the statements lead to from this one, itself included, up to where one is missing."""
    pem = load_der_public_key(first.der).public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    try:
        return {version.public_key for version in verify_continuity(document, pem).versions}
    except VerificationError as error:
        if error.fault == "first_key":
            return {first.der}
        if error.fault == "broken_link":
            fields = parse_object(document)
            before = {**fields, "statements": fields["statements"][: error.sequence]}
            return _reached(json.dumps(before).encode(), first)
        raise VerificationError("log_key", None, f"log-key.json: {error}") from error


def _read(trust: Trust, document: bytes) -> tuple[list[VerificationKey], bool]:
    try:
        fields = parse_object(document)
        texts, statements = fields.get("vkeys"), fields.get("statements")
        vkeys = [parse_vkey(str(text)) for text in texts[:_MOST_VERSIONS]] if isinstance(texts, list) else []
    except ValueError as error:
        raise VerificationError("format", None, f"log-key.json cannot be read: {error}") from error
    if fields.get("key") != LOG_KEY or not vkeys or not isinstance(statements, list):
        message = f"log-key.json must hold the key {LOG_KEY}, its vkeys and their statements"
        raise VerificationError("format", None, message)
    if len(set(vkeys)) != len(vkeys):
        raise VerificationError("log_key", None, "log-key.json names a version twice")
    for key in vkeys:
        if key.is_witness or key.name != trust.origin:
            raise VerificationError("log_key", None, f"log-key.json names a key of {shown(key.name)}, not of the log")
    return vkeys, bool(statements)
