"""All of KeyService, from its parts: keys and versions, certificates and continuity, watching."""

from __future__ import annotations

import asyncio

from hsmsigner.api.authn import Authenticator
from hsmsigner.api.certificates import CertificateMethods
from hsmsigner.api.convert import Converter
from hsmsigner.api.keys import KeyServicer
from hsmsigner.api.watch import WatchMethods
from hsmsigner.operations.certificates import Certificates
from hsmsigner.operations.governance import GovernanceCache
from hsmsigner.operations.keys import Keys


class KeyService(CertificateMethods, WatchMethods, KeyServicer):
    """What gRPC is given. The generated base comes last, or its UNIMPLEMENTED would hide the methods."""

    def __init__(
        self,
        keys: Keys,
        certificates: Certificates,
        governance: GovernanceCache,
        *,
        converter: Converter,
        authenticator: Authenticator,
        draining: asyncio.Event,
    ) -> None:
        super().__init__(keys, converter)
        self._certificates = certificates
        self._governance = governance
        self._authenticator = authenticator
        self._draining = draining
