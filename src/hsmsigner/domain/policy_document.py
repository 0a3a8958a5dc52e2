"""Reading `policy.yaml`: the whole document or nothing, every fault with its line."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, ValidationError

from hsmsigner.domain.instant import parse_duration_us
from hsmsigner.domain.pattern import Pattern
from hsmsigner.domain.policy import Grant, InputKind, KeyRule, Policy, Right
from hsmsigner.domain.positioned_yaml import DocumentError, PositionedYaml, Problem
from hsmsigner.domain.quota import Quota

_NAME = r"^[a-z][a-z0-9-]{0,62}$"
_GROUP = "group:"


def _checked_pattern(text: str) -> str:
    if any("**" in segment and segment != "**" for segment in text.split("/")):
        raise ValueError("`**` must be a whole segment, as in keys/** or **")
    return text


def _no_group(text: str) -> str:
    if text.startswith(_GROUP):
        raise ValueError("must be a principal; groups do not hold groups")
    return text


def _whole_number(value: Any) -> Any:
    # True and 1.0 are equal to 1 in Python, and not what the document's author meant to write.
    if type(value) is not int:
        raise ValueError("should be 1")
    return value


def _checked_duration(text: str) -> str:
    parse_duration_us(text)
    return text


def _no_quota_said_aloud(value: Any) -> Any:
    """`unlimited` becomes no quotas; an empty or missing list is more often a slip than a wish, and is refused."""
    if value == "unlimited":
        return None
    if not isinstance(value, list) or not value:
        raise ValueError("must list at least one quota; write `quotas: unlimited` to allow signing without one")
    return value


PatternText = Annotated[
    str, StringConstraints(min_length=1, max_length=512, pattern=r"^[!-{}~]+$"), AfterValidator(_checked_pattern)
]
MemberText = Annotated[PatternText, AfterValidator(_no_group)]
GroupName = Annotated[str, StringConstraints(pattern=_NAME)]
DurationText = Annotated[str, AfterValidator(_checked_duration)]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class _Quota(_Model):
    id: Annotated[str, StringConstraints(pattern=_NAME)]
    count: Annotated[int, Field(ge=0, le=10**12)]
    per: DurationText
    by: list[Literal["principal"]] = Field(default=[], max_length=1)
    per_version: bool = False


class _Grant(_Model):
    principals: Annotated[list[PatternText], Field(min_length=1)]
    keys: Annotated[list[PatternText], Field(min_length=1)]
    rights: Annotated[list[Annotated[Right, Field(strict=False)]], Field(min_length=1)]


class _KeyRule(_Model):
    match: PatternText
    inputs: Annotated[list[Annotated[InputKind, Field(strict=False)]], Field(min_length=1)]
    quotas: Annotated[list[_Quota] | None, BeforeValidator(_no_quota_said_aloud)]


class _Document(_Model):
    version: Annotated[Literal[1], BeforeValidator(_whole_number)]
    groups: dict[GroupName, Annotated[list[MemberText], Field(min_length=1)]] = {}
    grants: list[_Grant]
    keys: list[_KeyRule]


def parse_policy(document: bytes, revision: int) -> Policy:
    """Read and compile a document.

    Raises:
        DocumentError: with every fault found.
    """
    source = PositionedYaml(document)
    try:
        model = _Document.model_validate(source.data)
    except ValidationError as error:
        raise DocumentError(_problems(error, source)) from error
    problems = list(_cross_checks(model, source))
    if problems:
        raise DocumentError(problems)
    return Policy(
        revision,
        hashlib.sha256(document).hexdigest(),
        tuple(
            Grant(_principals(grant, model), tuple(map(Pattern, grant.keys)), frozenset(grant.rights))
            for grant in model.grants
        ),
        tuple(KeyRule(Pattern(rule.match), frozenset(rule.inputs), _quotas(rule)) for rule in model.keys),
    )


def _principals(grant: _Grant, model: _Document) -> tuple[Pattern, ...]:
    return tuple(
        Pattern(member)
        for text in grant.principals
        for member in (model.groups[text.removeprefix(_GROUP)] if text.startswith(_GROUP) else [text])
    )


def _quotas(rule: _KeyRule) -> tuple[Quota, ...]:
    return tuple(
        Quota(quota.id, quota.count, parse_duration_us(quota.per), bool(quota.by), quota.per_version)
        for quota in rule.quotas or ()
    )


def _cross_checks(model: _Document, source: PositionedYaml) -> Iterator[Problem]:
    for index, grant in enumerate(model.grants):
        for position, principal in enumerate(grant.principals):
            name = principal.removeprefix(_GROUP)
            if principal.startswith(_GROUP) and name not in model.groups:
                place = ("grants", index, "principals", position)
                yield source.problem(place, f"group {name!r} is not defined under `groups`")
    seen: set[str] = set()
    for index, rule in enumerate(model.keys):
        for position, quota in enumerate(rule.quotas or ()):
            if quota.id in seen:
                path = ("keys", index, "quotas", position, "id")
                yield source.problem(path, f"quota id {quota.id!r} is used twice in this document")
            seen.add(quota.id)


def _problems(error: ValidationError, source: PositionedYaml) -> list[Problem]:
    return sorted(
        (source.problem(_path(fault["loc"]), _message(fault["type"], fault["msg"])) for fault in error.errors()),
        key=lambda problem: (problem.line, problem.column),
    )


def _path(location: tuple[str | int, ...]) -> tuple[str | int, ...]:
    # Pydantic's way of saying that a mapping's key is at fault, not its value.
    return tuple(part for part in location if part != "[key]")


def _message(kind: str, text: str) -> str:
    special = {"extra_forbidden": "is not a known field here", "missing": "is missing"}
    return special.get(kind, text.removeprefix("Value error, "))
