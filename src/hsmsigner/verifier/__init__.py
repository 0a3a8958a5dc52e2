"""Offline verification of the log and of the continuity of keys.

Shares no code with the server: what a bug there hides must be found here.
"""

from hsmsigner.verifier.chain import ChainVerifier, VerificationError, verify_records
from hsmsigner.verifier.continuity import Continuity, TrustedVersion, verify_continuity

__all__ = [
    "ChainVerifier",
    "Continuity",
    "TrustedVersion",
    "VerificationError",
    "verify_continuity",
    "verify_records",
]
