"""Another PKCS#11 client, run as a program while no worker runs: it reads what the token says, and plants keys.

Reads orders as JSON from stdin: module, label, pin, do, and what that needs; prints JSON.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pkcs11
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from pkcs11 import Attribute, KeyType, MechanismFlag, ObjectClass

from hsmsigner.token.mechanism import attribute_mapper
from tests.softhsm import USER_PIN, SoftHsm

_SHOWN_OF_PUBLIC = ("VERIFY", "VERIFY_RECOVER", "ENCRYPT", "WRAP")
_P256 = bytes.fromhex("06082a8648ce3d030107")
_SHOWN = [
    *("PRIVATE", "LOCAL", "SENSITIVE", "ALWAYS_SENSITIVE", "EXTRACTABLE", "NEVER_EXTRACTABLE"),
    *("SIGN", "DECRYPT", "UNWRAP", "DERIVE", "SIGN_RECOVER", "ALLOWED_MECHANISMS"),
]


def ask_token(hsm: SoftHsm, do: str, **orders: Any) -> Any:
    """Run one of the functions below in a process of its own."""
    return ask_token_of(hsm.token, USER_PIN, do, **orders)


def ask_token_of(section: dict[str, Any], pin: str, do: str, **orders: Any) -> Any:
    """The same for a token as the `token` section of an appliance's settings describes it."""
    token = {"module": section["module"], "label": section["label"], "pin": pin}
    done = subprocess.run(
        [sys.executable, "-m", "tests.token.other_client"],
        input=json.dumps(token | {"do": do} | orders),
        env={"PATH": "/usr/bin:/bin"} | section["environment"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def attributes(session: pkcs11.Session, cka_id: bytes) -> dict[str, Any]:
    """What the token says of the only pair with that CKA_ID, and whether it gives the secret out."""
    (key,) = session.get_objects({Attribute.CLASS: ObjectClass.PRIVATE_KEY, Attribute.ID: cka_id})
    shown = {name: key[Attribute[name]] for name in _SHOWN}
    try:
        secret = Attribute.PRIVATE_EXPONENT if key[Attribute.KEY_TYPE] == KeyType.RSA else Attribute.VALUE
        shown["VALUE"] = key[secret].hex()
    except pkcs11.exceptions.AttributeSensitive:
        shown["VALUE"] = "sensitive"
    (public,) = session.get_objects({Attribute.CLASS: ObjectClass.PUBLIC_KEY, Attribute.ID: cka_id})
    return shown | {name: public[Attribute[name]] for name in _SHOWN_OF_PUBLIC}


def plant(session: pkcs11.Session, cka_id: bytes, *, extractable: bool, label: str = "") -> str:
    """Generate a P-256 pair that may be EXTRACTABLE; gives its SubjectPublicKeyInfo in hex."""
    public, _private = session.create_domain_parameters(
        KeyType.EC, {Attribute.EC_PARAMS: _P256}, local=True
    ).generate_keypair(
        id=cka_id,
        label=label,
        store=True,
        capabilities=MechanismFlag.SIGN | MechanismFlag.VERIFY,
        private_template={Attribute.EXTRACTABLE: extractable},
    )
    point = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), public[Attribute.EC_POINT][2:])
    return point.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo).hex()


def destroy(session: pkcs11.Session, cka_id: bytes) -> int:
    """Destroy everything with that CKA_ID; gives the number of objects."""
    found = list(session.get_objects({Attribute.ID: cka_id}))
    for entry in found:
        entry.destroy()
    return len(found)


def destroy_half(session: pkcs11.Session, cka_id: bytes, half: str) -> int:
    """Destroy the PUBLIC_KEY or the PRIVATE_KEY of a pair; gives what is left of it."""
    (found,) = session.get_objects({Attribute.CLASS: ObjectClass[half], Attribute.ID: cka_id})
    found.destroy()
    return len(list(session.get_objects({Attribute.ID: cka_id})))


def private_keys(session: pkcs11.Session) -> list[str]:
    """CKA_ID of every private key, in hex."""
    return sorted(key[Attribute.ID].hex() for key in session.get_objects({Attribute.CLASS: ObjectClass.PRIVATE_KEY}))


def count_keys(session: pkcs11.Session) -> int:
    """How many public and private key objects there are."""
    halves = (ObjectClass.PUBLIC_KEY, ObjectClass.PRIVATE_KEY)
    return sum(len(list(session.get_objects({Attribute.CLASS: half}))) for half in halves)


def data_objects(session: pkcs11.Session) -> list[list[str]]:
    """Application, label and value of every data object."""
    wanted = [Attribute.APPLICATION, Attribute.LABEL, Attribute.VALUE]
    found = session.get_objects({Attribute.CLASS: ObjectClass.DATA})
    shown = [entry.get_attributes(wanted) for entry in found]
    return sorted([row[wanted[0]], row[wanted[1]], row[wanted[2]].decode()] for row in shown)


def plant_data(session: pkcs11.Session, label: str, values: list[str], *, private: bool = True) -> int:
    """Make a data object of our application for each value; one that is not private needs no PIN."""
    for value in values:
        session.create_object(
            {
                Attribute.CLASS: ObjectClass.DATA,
                Attribute.TOKEN: True,
                Attribute.PRIVATE: private,
                Attribute.APPLICATION: "hsmsigner",
                Attribute.LABEL: label,
                Attribute.VALUE: value.encode(),
            }
        )
    return len(values)


def _main() -> None:
    orders = json.load(sys.stdin)
    token = pkcs11.lib(orders["module"]).get_token(token_label=orders["label"])
    cka_id = bytes.fromhex(orders.get("cka_id", ""))
    with token.open(rw=True, user_pin=orders["pin"] or None, attribute_mapper=attribute_mapper()) as session:
        answer: Any
        match orders["do"]:
            case "attributes":
                answer = attributes(session, cka_id)
            case "plant":
                answer = plant(session, cka_id, extractable=orders["extractable"], label=orders.get("object_label", ""))
            case "destroy_half":
                answer = destroy_half(session, cka_id, orders["half"])
            case "destroy":
                answer = destroy(session, cka_id)
            case "private_keys":
                answer = private_keys(session)
            case "count_keys":
                answer = count_keys(session)
            case "data_objects":
                answer = data_objects(session)
            case "plant_data":
                answer = plant_data(session, orders["data_label"], orders["values"], private=bool(orders["pin"]))
    print(json.dumps(answer))  # noqa: T201 - the answer


if __name__ == "__main__":
    _main()
