"""Checks of rights outside the sign path. There is no root: who has no grant is refused, whoever it is."""

from __future__ import annotations

from hsmsigner.domain.key import LOG_KEY, Key, KeyName, KeyVersion, VersionName
from hsmsigner.domain.policy import Right
from hsmsigner.domain.principal import Principal
from hsmsigner.errors import Reason, SignerError, invalid_field
from hsmsigner.operations.governance import Governance

_LONGEST_REASON = 1000


def require_right(governance: Governance, principal: Principal, *rights: Right) -> None:
    """See that the principal holds one of the rights, over whatever keys.

    Raises:
        SignerError: FORBIDDEN, naming the rights that would do.
    """
    if not any(governance.policy.holds_somewhere(principal.text, right) for right in rights):
        wanted = " or ".join(f"`{right.value}`" for right in rights)
        raise SignerError(
            Reason.FORBIDDEN, f"this needs the right {wanted}, which no grant gives you", metadata={"rule": "grants"}
        )


def require_key_rights(governance: Governance, principal: Principal, name: KeyName, *rights: Right) -> None:
    """See that the principal holds every one of the rights over the name of a key, which need not exist yet.

    Raises:
        SignerError: KEY_NOT_FOUND_OR_FORBIDDEN.
    """
    if not governance.policy.entitlement(principal.text, str(name)).rights.issuperset(rights):
        raise not_found_or_forbidden(name)


def visible_key(governance: Governance, principal: Principal, name: KeyName, right: Right | None = None) -> Key:
    """The key, if the principal holds this right (or, with None, any right) over it.

    Raises:
        SignerError: KEY_NOT_FOUND_OR_FORBIDDEN; absent and forbidden answer alike (AIP-211).
    """
    rights = governance.policy.entitlement(principal.text, str(name)).rights
    key = governance.key(name)
    if key is None or not (rights if right is None else right in rights):
        raise not_found_or_forbidden(name)
    return key


def visible_version(
    governance: Governance, principal: Principal, name: KeyName | VersionName, right: Right
) -> KeyVersion:
    """The named version, or the primary of the named key.

    Raises:
        SignerError: KEY_NOT_FOUND_OR_FORBIDDEN.
    """
    if isinstance(name, KeyName):
        return visible_key(governance, principal, name, right).primary
    version = visible_key(governance, principal, name.key, right).version(name.number)
    if version is None:
        raise not_found_or_forbidden(name)
    return version


def refuse_log_key(name: KeyName | VersionName) -> None:
    """See that it is not the log's own key, which the appliance makes itself and which signs checkpoints alone.

    Raises:
        SignerError: KEY_RESERVED.
    """
    if (name.key if isinstance(name, VersionName) else name) == LOG_KEY:
        message = f"{LOG_KEY} is the log's own key: the appliance makes it, and it signs checkpoints and nothing else"
        raise SignerError(Reason.KEY_RESERVED, message)


def check_reason(reason: str) -> None:
    """See that a change says why.

    Raises:
        SignerError: INVALID_FIELD.
    """
    if not reason.strip() or len(reason) > _LONGEST_REASON:
        raise invalid_field("reason", f"must say why, in 1-{_LONGEST_REASON} characters")


def check_etag(given: str, current: str) -> None:
    """See that what the caller saw is what there is (AIP-154); an empty etag asks for no check.

    Raises:
        SignerError: ETAG_MISMATCH.
    """
    if given not in ("", current):
        message = "it was changed since you looked; look again, and send the etag of what you see"
        raise SignerError(Reason.ETAG_MISMATCH, message, metadata={"etag": current})


def not_found_or_forbidden(name: KeyName | VersionName) -> SignerError:
    """The one answer for what is not there and what is not yours."""
    return SignerError(Reason.KEY_NOT_FOUND_OR_FORBIDDEN, f"{name} does not exist, or you have no right to it")
