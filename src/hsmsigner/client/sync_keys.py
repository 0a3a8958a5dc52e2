"""Keys, versions, certificates and key sets for threads; `SignerClient` has them all. Words as in `AsyncKeyCalls`."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Coroutine, Iterator, Sequence
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, Self, TypeVar

from hsmsigner.client.aio import AsyncSignerClient
from hsmsigner.client.errors import Unavailable
from hsmsigner.client.key_set import KeySet, KeySetCache
from hsmsigner.client.rotation import RotationPolicy
from hsmsigner.pb import keys_pb2, resources_pb2, signing_pb2

_Result = TypeVar("_Result")


class Calls:
    """What the calls stand on: the asyncio client, and the way onto its event loop."""

    _client: AsyncSignerClient

    def _run(self, call: Coroutine[Any, Any, _Result]) -> _Result:
        raise NotImplementedError


class KeyCalls(Calls):
    """Keys and versions. `reason` is for the record; with `etag`, only what was seen is changed."""

    def get_public_key(self, name: str) -> resources_pb2.PublicKey:
        """The public key of a key's primary or of a version, its checksum checked."""
        return self._run(self._client.get_public_key(name))

    def list_public_keys(self) -> Iterator[resources_pb2.PublicKey]:
        """Every public key the caller may see."""
        for page in _pages(self.public_key_page):
            yield from page.public_keys

    def public_key_page(self, page_token: str = "") -> signing_pb2.ListPublicKeysResponse:
        """One page of them, with its JWK Set."""
        return self._run(self._client.public_key_page(page_token))

    def watch_keys(self) -> ThreadKeySetCache:
        """Every public key the caller may see, kept current by the server; a context manager."""
        return ThreadKeySetCache(self._run, self._client.watch_keys)

    def create_key(
        self, key_id: str, algorithm: str, *, request_id: str | None = None, validate_only: bool = False
    ) -> resources_pb2.Key:
        """Generate a key pair on the token; `key_id` without `keys/`, `algorithm` as in ECDSA_P256_SHA256."""
        return self._run(self._client.create_key(key_id, algorithm, request_id=request_id, validate_only=validate_only))

    def get_key(self, name: str) -> resources_pb2.Key:
        """A key and its primary version."""
        return self._run(self._client.get_key(name))

    def list_keys(self) -> Iterator[resources_pb2.Key]:
        """The keys over which the caller has any right, by name."""
        for page in _pages(self.key_page):
            yield from page.keys

    def key_page(self, page_token: str = "") -> keys_pb2.ListKeysResponse:
        """One page of them."""
        return self._run(self._client.key_page(page_token))

    def list_key_versions(self, name: str) -> Iterator[resources_pb2.KeyVersion]:
        """The versions of one key, oldest first."""
        for page in _pages(lambda page_token: self.key_version_page(name, page_token)):
            yield from page.versions

    def key_version_page(self, name: str, page_token: str = "") -> keys_pb2.ListKeyVersionsResponse:
        """One page of them."""
        return self._run(self._client.key_version_page(name, page_token))

    def set_rotation_policy(
        self, name: str, policy: RotationPolicy, *, reason: str, etag: str = ""
    ) -> resources_pb2.Key:
        """Replace a key's rotation policy; an empty one ends automatic rotation."""
        return self._run(self._client.set_rotation_policy(name, policy, reason=reason, etag=etag))

    def rotate_key(
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
        return self._run(
            self._client.rotate_key(
                name,
                reason=reason,
                activate_time=activate_time,
                overlap=overlap,
                request_id=request_id,
                etag=etag,
                validate_only=validate_only,
            )
        )

    def activate_key_version(self, name: str, *, reason: str, etag: str = "") -> resources_pb2.KeyVersion:
        """PRE_ACTIVATION to ACTIVE; the version becomes the primary."""
        return self._run(self._client.activate_key_version(name, reason=reason, etag=etag))

    def suspend_key_version(self, name: str, *, reason: str, etag: str = "") -> resources_pb2.KeyVersion:
        """ACTIVE to SUSPENDED: it signs nothing until resumed."""
        return self._run(self._client.suspend_key_version(name, reason=reason, etag=etag))

    def resume_key_version(self, name: str, *, reason: str, etag: str = "") -> resources_pb2.KeyVersion:
        """SUSPENDED to ACTIVE."""
        return self._run(self._client.resume_key_version(name, reason=reason, etag=etag))

    def deactivate_key_version(self, name: str, *, reason: str, etag: str = "") -> resources_pb2.KeyVersion:
        """To DEACTIVATED, for good."""
        return self._run(self._client.deactivate_key_version(name, reason=reason, etag=etag))

    def mark_key_version_compromised(self, name: str, *, reason: str, etag: str = "") -> resources_pb2.KeyVersion:
        """To COMPROMISED, for good; verifiers see it in every key set."""
        return self._run(self._client.mark_key_version_compromised(name, reason=reason, etag=etag))

    def schedule_destroy_key_version(
        self, name: str, *, reason: str, delay: timedelta | None = None, etag: str = ""
    ) -> resources_pb2.KeyVersion:
        """To DESTROY_SCHEDULED; it can be restored for `delay` (the server's 30 days unless told)."""
        return self._run(self._client.schedule_destroy_key_version(name, reason=reason, delay=delay, etag=etag))

    def restore_key_version(self, name: str, *, reason: str, etag: str = "") -> resources_pb2.KeyVersion:
        """DESTROY_SCHEDULED back to the state before."""
        return self._run(self._client.restore_key_version(name, reason=reason, etag=etag))

    def destroy_key_version(self, name: str, *, reason: str, etag: str = "") -> resources_pb2.KeyVersion:
        """DESTROY_SCHEDULED to DESTROYED: the pair is destroyed on the token. Not to be undone."""
        return self._run(self._client.destroy_key_version(name, reason=reason, etag=etag))

    def adopt_key_version(
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
        return self._run(
            self._client.adopt_key_version(
                name, algorithm, cka_id, reason=reason, allow_unprotected=allow_unprotected, request_id=request_id
            )
        )


class CertificateCalls(Calls):
    """What vouches for a public key, to others and among versions."""

    def create_certificate_signing_request(
        self,
        name: str,
        subject: str,
        *,
        dns_names: Sequence[str] = (),
        uris: Sequence[str] = (),
        ip_addresses: Sequence[str] = (),
        email_addresses: Sequence[str] = (),
        key_usages: Sequence[str] = (),
        extended_key_usages: Sequence[str] = (),
        self_signed_lifetime: timedelta | None = None,
    ) -> keys_pb2.CertificateSigningRequest:
        """A PKCS#10 request, signed by a key's primary or by a version. `subject` as in `CN=settlement-eu,O=Bank`.

        With `self_signed_lifetime`, for development, a certificate of its own instead.
        """
        return self._run(
            self._client.create_certificate_signing_request(
                name,
                subject,
                dns_names=dns_names,
                uris=uris,
                ip_addresses=ip_addresses,
                email_addresses=email_addresses,
                key_usages=key_usages,
                extended_key_usages=extended_key_usages,
                self_signed_lifetime=self_signed_lifetime,
            )
        )

    def attach_certificate(
        self, name: str, certificate_chain: str, *, reason: str, etag: str = ""
    ) -> resources_pb2.KeyVersion:
        """Attach a certificate chain (PEM, leaf first) to the version whose public key the leaf certifies."""
        return self._run(self._client.attach_certificate(name, certificate_chain, reason=reason, etag=etag))

    def list_continuity_statements(self, name: str) -> Iterator[resources_pb2.ContinuityStatement]:
        """The continuity statements of a key, oldest first."""
        for page in _pages(lambda page_token: self.continuity_statement_page(name, page_token)):
            yield from page.statements

    def continuity_statement_page(self, name: str, page_token: str = "") -> keys_pb2.ListContinuityStatementsResponse:
        """One page of them."""
        return self._run(self._client.continuity_statement_page(name, page_token))


class ThreadKeySetCache:
    """`KeySetCache` for threads: `with client.watch_keys() as keys: keys.current.get(signature.name)`."""

    def __init__(self, run: Callable[[Coroutine[Any, Any, Any]], Any], make: Callable[[], KeySetCache]) -> None:
        self._run = run
        self._make = make
        self._cache: KeySetCache

    def __enter__(self) -> Self:
        self._cache = self._run(self._start())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # A client that was closed first has ended the watch with it.
        with contextlib.suppress(Unavailable):
            self._run(self._cache.close())

    @property
    def current(self) -> KeySet:
        """The newest key set.

        Raises:
            SigningClientError: the server refused to go on.
        """
        return self._cache.current

    def wait_for(self, is_wanted: Callable[[KeySet], bool], timeout_s: float = 30.0) -> KeySet:
        """The current key set, as soon as it is one that is wanted.

        Raises:
            SigningClientError: none came in time, or the server refused.
        """
        key_set: KeySet = self._run(self._cache.wait_for(is_wanted, timeout_s))
        return key_set

    async def _start(self) -> KeySetCache:
        # Made on the event loop it lives on.
        cache = self._make()
        await cache.start()
        return cache


def _pages(fetch: Callable[[str], Any]) -> Iterator[Any]:
    page_token = ""
    while True:
        page = fetch(page_token)
        yield page
        if not (page_token := page.next_page_token):
            return
