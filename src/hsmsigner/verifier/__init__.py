"""Offline verification of the log. Shares no code with the server: what a bug there hides must be found here."""

from hsmsigner.verifier.chain import ChainVerifier, VerificationError, verify_records

__all__ = ["ChainVerifier", "VerificationError", "verify_records"]
