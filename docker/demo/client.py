"""A client in a container of its own: makes a key if there is none, signs a payment, and checks the signature.

The check uses the public key and the cryptography package alone, as whoever receives the payment would.
"""

from __future__ import annotations

import sys
from pathlib import Path

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from hsmsigner.client import SignerClient, SigningClientError

PROFILES = Path("/clients/network")
KEY = "keys/settlement-eu"


def main() -> None:
    """Sign and verify once; any fault ends the program with a traceback and exit code 1."""
    payment = Path("/demo-input/pacs009.xml").read_bytes()
    with SignerClient.from_profile(PROFILES / "operator.yaml") as operator:
        if KEY not in {key.name for key in operator.list_keys()}:
            operator.create_key(KEY.partition("/")[2], "ECDSA_P256_SHA256")
    try:
        with SignerClient.from_profile(PROFILES / "engine.yaml") as engine:
            signed = engine.sign(KEY, payment, output_format="DER")
            public_key = load_pem_public_key(engine.get_public_key(KEY).pem.encode())
    except SigningClientError as refusal:
        sys.exit(f"refused: {refusal.reason} {refusal.metadata}")
    if not isinstance(public_key, ec.EllipticCurvePublicKey):
        sys.exit("the key is not the one this demonstration makes")
    public_key.verify(signed.signature, payment, ec.ECDSA(hashes.SHA256()))
    sys.stdout.write(f"signed by {signed.name}, audit record {signed.audit_sequence}; the signature verifies\n")


if __name__ == "__main__":
    main()
