"""All of KeyService, from its parts: keys and versions, certificates and continuity, watching."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from hsmsigner.api.authn import Authenticator
from hsmsigner.api.certificates import CertificateMethods
from hsmsigner.api.convert import Converter
from hsmsigner.api.keys import KeyServicer
from hsmsigner.api.lifecycle import LifecycleMethods
from hsmsigner.api.watch import WatchMethods
from hsmsigner.operations.adoption import Adoption
from hsmsigner.operations.certificates import Certificates
from hsmsigner.operations.governance import GovernanceCache
from hsmsigner.operations.keys import Keys
from hsmsigner.operations.lifecycle import Lifecycle
from hsmsigner.operations.rotation import Rotations


@dataclass(frozen=True, slots=True)
class KeyUseCases:
    """What the methods of KeyService call."""

    keys: Keys
    lifecycle: Lifecycle
    rotations: Rotations
    adoption: Adoption
    certificates: Certificates
    governance: GovernanceCache


class KeyService(LifecycleMethods, CertificateMethods, WatchMethods, KeyServicer):
    """What gRPC is given. The generated base comes last, or its UNIMPLEMENTED would hide the methods."""

    def __init__(
        self,
        use_cases: KeyUseCases,
        *,
        converter: Converter,
        authenticator: Authenticator,
        draining: asyncio.Event,
    ) -> None:
        super().__init__(use_cases.keys, converter)
        self._lifecycle = use_cases.lifecycle
        self._rotations = use_cases.rotations
        self._adoption = use_cases.adoption
        self._certificates = use_cases.certificates
        self._governance = use_cases.governance
        self._authenticator = authenticator
        self._draining = draining
