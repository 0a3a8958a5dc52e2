"""Requests: every outcome has its authorization, one each, of the same principal and key."""

from __future__ import annotations

from typing import NamedTuple

from hsmsigner.verifier.fault import VerificationError, shown
from hsmsigner.verifier.meaning.fields import Fields, Judge, number, text

_RequestKey = tuple[str, str]


class Authorization(NamedTuple):
    """One that has no outcome, or one that may be resumed. `first` is the record whose debit it signs under.

    `resumed_version` is the version that signed, or was to sign, the request it resumes: empty if it resumes none, None
    if nobody knows.
    """

    sequence: int
    first: int
    key: str
    body: str
    resumed_version: str | None = ""


class Requests:
    """Follows each request from its authorization to its outcome. Records before `begin` are not known."""

    def __init__(self, begin: int) -> None:
        self._begin = begin
        self._open: dict[_RequestKey, Authorization] = {}
        self._resumable: dict[_RequestKey, Authorization] = {}

    def judges(self) -> dict[str, Judge]:
        """What to ask for which type of record."""
        return {
            "sign.authorized": self.authorized,
            "sign.completed": self.completed,
            "sign.failed": self.failed,
            "sign.interrupted": self.interrupted,
        }

    def authorized(self, sequence: int, fields: Fields, _now: int) -> None:
        """A request is authorized once at a time; it is resumed only after it was interrupted, and with its body."""
        request = text(sequence, fields, "principal"), text(sequence, fields, "request_id")
        body = text(sequence, fields, "input_sha256")
        under_way, before = self._open.get(request), self._resumable.pop(request, None)
        is_resumed = fields.get("resumed") is True
        first = before.first if is_resumed and before is not None else sequence
        resumed = "" if not is_resumed else None if before is None else before.key
        self._open[request] = Authorization(sequence, first, text(sequence, fields, "key"), body, resumed)
        if under_way is not None:
            raise VerificationError(
                "authorization",
                sequence,
                f"record {sequence} authorizes {shown(request[1])} while record {under_way.sequence} has no outcome",
            )
        if not is_resumed:
            return
        if before is None:
            if self._begin == 0:
                raise VerificationError(
                    "authorization", sequence, f"record {sequence} resumes a request that was not interrupted"
                )
        elif before.body not in ("", body) or _key(before.key) != _key(fields["key"]):
            # A version made since may sign it; another key would sign under a debit that is not its own.
            what = "key" if before.body in ("", body) else "body"
            raise VerificationError(
                "authorization",
                sequence,
                f"record {sequence} resumes {shown(request[1])}, which record {before.first} was authorized for,"
                f" with another {what}",
            )

    def resumed_version(self, sequence: int, fields: Fields) -> str | None:
        """The `resumed_version` of the authorization that is under way for this record's request."""
        under_way = self._open.get((text(sequence, fields, "principal"), text(sequence, fields, "request_id")))
        return None if under_way is None else under_way.resumed_version

    def completed(self, sequence: int, fields: Fields, _now: int) -> None:
        """A signature was made and released."""
        self._end(sequence, fields)
        text(sequence, fields, "signature_sha256")

    def failed(self, sequence: int, fields: Fields, _now: int) -> None:
        """None was made. With the debit returned, the request is as if it had never been, unless it was resumed."""
        request, authorization = self._end(sequence, fields)
        is_over = fields.get("debit_returned") is True and authorization.first == authorization.sequence
        if not is_over:
            self._resumable[request] = authorization

    def interrupted(self, sequence: int, fields: Fields, _now: int) -> None:
        """Nobody knows whether one was made."""
        request, authorization = self._end(sequence, fields)
        self._resumable[request] = authorization

    def _end(self, sequence: int, fields: Fields) -> tuple[_RequestKey, Authorization]:
        request = text(sequence, fields, "principal"), text(sequence, fields, "request_id")
        stated, key = number(sequence, fields, "authorized"), text(sequence, fields, "key")
        authorization = self._open.get(request)
        if authorization is None:
            if stated < self._begin:
                return request, Authorization(stated, stated, key, "")
            raise VerificationError(
                "outcome",
                sequence,
                f"record {sequence} ({fields['type']}) is the outcome of {shown(request[1])}, which was not authorized"
                " for this principal, or has its outcome already",
            )
        if stated != authorization.sequence or key != authorization.key:
            raise VerificationError(
                "outcome",
                sequence,
                f"record {sequence} ({fields['type']}) ends record {stated} with {shown(key)}, and"
                f" {shown(request[1])} is authorized by record {authorization.sequence} with"
                f" {shown(authorization.key)}",
            )
        del self._open[request]
        return request, authorization


def _key(version: str) -> str:
    return version.rpartition("/versions/")[0]
