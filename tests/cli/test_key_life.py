"""The life of keys at the command line, against a running appliance; openssl is the CA and the verifier."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from hsmsigner.cli.appliance_process import ApplianceProcess
from hsmsigner.cli.output import ExitCode
from tests.cli.test_appliance import PAYMENT, CommandLine, make_state, openssl_accepts

WHY = ("--reason", "test")


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CommandLine]:
    state = make_state(tmp_path_factory.mktemp("appliance"))
    with (state.parent / "log").open("wb") as log, ApplianceProcess(state, log=log) as appliance:
        appliance.wait_until_ready()
        yield CommandLine(state)
        assert appliance.stop() == 0


def make_key(line: CommandLine, name: str) -> str:
    line.answer("operator", "keys", "create", name)
    return f"keys/{name}"


def openssl(*words: str | Path) -> str:
    done = subprocess.run(["openssl", *map(str, words)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def test_rotated_key_signs_with_its_next_version_and_the_old_signature_stays_good(
    line: CommandLine, tmp_path: Path
) -> None:
    key = make_key(line, "settlement-rotated")
    sign = ("sign", PAYMENT, "--key", key, "--format", "DER", "--out")
    before = line.answer("engine", *sign, tmp_path / "before.sig")

    done = line.run("operator", "rotate", key, "--overlap", "1h", *WHY)

    assert done.returncode == ExitCode.DONE, done
    assert b"now: it is the primary" in done.stdout
    assert f"{key}/versions/1 may still be named until".encode() in done.stdout
    after = line.answer("engine", *sign, tmp_path / "after.sig")
    assert (before["name"], after["name"]) == (f"{key}/versions/1", f"{key}/versions/2")
    by_old = line.answer("engine", "sign", PAYMENT, "--key", f"{key}/versions/1")
    assert by_old["name"] == f"{key}/versions/1"
    for number, signature in ((1, "before.sig"), (2, "after.sig")):
        pem = tmp_path / f"{number}.pem"
        line.answer("engine", "keys", "public-key", f"{key}/versions/{number}", "--out", pem)
        assert openssl_accepts(pem, tmp_path / signature, PAYMENT)


def test_chain_of_rotations_is_fetched_and_verified_offline(line: CommandLine, tmp_path: Path) -> None:
    key = make_key(line, "settlement-chain")
    first, today, chain = tmp_path / "first.pem", tmp_path / "today.pem", tmp_path / "chain.json"
    line.answer("engine", "keys", "public-key", key, "--out", first)
    for _ in range(3):
        line.answer("operator", "rotate", key, *WHY)
    line.answer("engine", "keys", "public-key", key, "--out", today)

    assert line.run("engine", "keys", "continuity", key, "--out", chain).returncode == ExitCode.DONE
    verify = ("keys", "verify-continuity", chain, "--trusted", first, "--current", today)
    answer = line.answer("stranger", *verify)

    assert answer["versions"] == [f"{key}/versions/{number}" for number in (1, 2, 3, 4)]
    assert answer["public_key"] == today.read_text()
    document = json.loads(chain.read_text())
    del document["statements"][1]
    chain.write_text(json.dumps(document))
    done = line.run("stranger", *verify, "--json")
    assert done.returncode == ExitCode.VERIFICATION
    assert json.loads(done.stderr)["error"]["fault"] == "broken_link"


def test_rotation_for_later_publishes_the_next_key_and_leaves_the_primary(line: CommandLine) -> None:
    key = make_key(line, "settlement-later")

    line.answer("operator", "rotate", key, "--activate-at", "+12h", *WHY)

    shown = line.answer("operator", "keys", "show", key)
    assert [version["state"] for version in shown["versions"]] == ["ACTIVE", "PRE_ACTIVATION"]
    assert shown["primary"]["name"] == f"{key}/versions/1"
    jwks = line.answer("engine", "keys", "jwks", "--key", key)["keys"]
    assert [jwk["state"] for jwk in jwks] == ["ACTIVE", "PRE_ACTIVATION"]
    expected = (datetime.now(UTC) + timedelta(hours=12)).timestamp()
    assert abs(jwks[1]["nbf"] - expected) < 120
    assert line.refusal("operator", "rotate", key, *WHY)["reason"] == "ROTATION_IN_PROGRESS"
    history = line.run("operator", "keys", "history", key).stdout.decode()
    assert "v2 PRE_ACTIVATION  " in history
    assert "(in 11h)" in history


def test_version_goes_through_its_states_one_command_each(line: CommandLine) -> None:
    key = make_key(line, "settlement-states")
    line.answer("operator", "rotate", key, "--overlap", "1h", *WHY)
    old, new = f"{key}/versions/1", f"{key}/versions/2"

    def after(command: str, version: str, *words: str) -> str:
        return str(line.answer("operator", "keys", command, version, *WHY, *words)["state"])

    assert after("suspend", new) == "SUSPENDED"
    assert line.refusal("engine", "sign", PAYMENT, "--key", key)["reason"] == "KEY_NOT_ACTIVE"
    assert line.refusal("operator", "keys", "csr", key, "--subject", "CN=a")["reason"] == "WRONG_STATE"
    assert after("resume", new) == "ACTIVE"
    assert line.refusal("operator", "keys", "deactivate", new, *WHY)["reason"] == "WRONG_STATE"
    assert after("deactivate", old) == "DEACTIVATED"
    assert after("schedule-destroy", old, "--delay", "2d") == "DESTROY_SCHEDULED"
    assert after("restore", old) == "DEACTIVATED"
    assert line.refusal("operator", "keys", "destroy", old, *WHY, "--yes")["reason"] == "WRONG_STATE"
    assert after("schedule-destroy", old) == "DESTROY_SCHEDULED"
    assert after("destroy", old, "--yes") == "DESTROYED"
    assert line.refusal("operator", "keys", "restore", old, *WHY)["reason"] == "WRONG_STATE"
    assert after("compromised", new) == "COMPROMISED"
    # The destroyed one is in no key set, the compromised one in none that would be trusted blindly.
    assert line.answer("engine", "keys", "jwks", "--key", key)["keys"] == []
    versions = line.answer("operator", "keys", "history", key)["versions"]
    assert [version["state"] for version in versions] == ["DESTROYED", "COMPROMISED"]


def test_change_of_what_was_changed_meanwhile_is_refused(line: CommandLine) -> None:
    key = make_key(line, "settlement-etag")
    seen = line.answer("operator", "keys", "show", key)["primary"]["etag"]
    line.answer("operator", "keys", "suspend", f"{key}/versions/1", *WHY, "--etag", seen)

    error = line.refusal("operator", "keys", "resume", f"{key}/versions/1", *WHY, "--etag", seen)

    assert error["reason"] == "ETAG_MISMATCH"


@pytest.mark.parametrize("client", ["engine", "stranger"])
def test_who_signs_may_neither_rotate_nor_manage(line: CommandLine, client: str) -> None:
    key = make_key(line, f"settlement-rights-{client}")

    for words in (["rotate", key], ["keys", "suspend", f"{key}/versions/1"]):
        assert line.refusal(client, *words, *WHY)["reason"] == "KEY_NOT_FOUND_OR_FORBIDDEN"
    assert len(line.answer("operator", "keys", "show", key)["versions"]) == 1


def test_openssl_as_ca_certifies_the_key_and_the_certificate_is_served_with_it(
    line: CommandLine, tmp_path: Path
) -> None:
    key = make_key(line, "settlement-certified")
    request, certificate, chain = tmp_path / "eu.csr", tmp_path / "eu.pem", tmp_path / "chain.pem"
    ca, ca_key = tmp_path / "ca.pem", tmp_path / "ca-key.pem"
    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    openssl("req", "-x509", *curve, "-keyout", ca_key, "-out", ca, "-subj", "/CN=Test CA", "-days", "30")

    words = ("--subject", "CN=settlement-eu,O=Bank", "--dns", "signer.bank.example", "--out", request)
    line.answer("operator", "keys", "csr", key, *words)
    assert "verify OK" in openssl("req", "-verify", "-noout", "-in", request)
    signing = ("-CA", ca, "-CAkey", ca_key, "-CAcreateserial", "-days", "20", "-copy_extensions", "copy")
    openssl("x509", "-req", "-in", request, *signing, "-out", certificate)
    assert "DNS:signer.bank.example" in openssl("x509", "-noout", "-text", "-in", certificate)
    chain.write_bytes(certificate.read_bytes() + ca.read_bytes())
    attached = line.answer("operator", "keys", "attach-certificate", f"{key}/versions/1", chain, *WHY)

    assert attached["certificate_chain"].count("BEGIN CERTIFICATE") == 2
    [jwk] = line.answer("engine", "keys", "jwks", "--key", key)["keys"]
    assert len(jwk["x5c"]) == 2
    served = tmp_path / "served.pem"
    served.write_text(attached["certificate_chain"])
    assert "served.pem: OK" in openssl("verify", "-CAfile", ca, served)
    # A signature checked with nothing but the certificate.
    line.answer("engine", "sign", PAYMENT, "--key", key, "--format", "DER", "--out", tmp_path / "payment.sig")
    (tmp_path / "key.pem").write_text(openssl("x509", "-pubkey", "-noout", "-in", served))
    assert openssl_accepts(tmp_path / "key.pem", tmp_path / "payment.sig", PAYMENT)


def test_key_certifies_itself_for_development(line: CommandLine, tmp_path: Path) -> None:
    key = make_key(line, "settlement-self")
    certificate = tmp_path / "self.pem"

    line.answer("operator", "keys", "csr", key, "--subject", "CN=dev", "--self-signed", "30d", "--out", certificate)
    line.answer("operator", "keys", "attach-certificate", f"{key}/versions/1", certificate, *WHY)

    assert "self.pem: OK" in openssl("verify", "-CAfile", certificate, certificate)
    assert len(line.answer("engine", "keys", "jwks", "--key", key)["keys"][0]["x5c"]) == 1


def test_certificate_of_another_key_is_refused(line: CommandLine, tmp_path: Path) -> None:
    key = make_key(line, "settlement-other-certificate")
    other = tmp_path / "other.pem"
    openssl("req", "-x509", "-newkey", "ed25519", "-nodes", "-keyout", tmp_path / "k", "-out", other, "-subj", "/CN=a")

    error = line.refusal("operator", "keys", "attach-certificate", f"{key}/versions/1", other, *WHY)

    assert error["reason"] == "CERTIFICATE_INVALID"
    assert line.answer("operator", "keys", "show", key)["primary"]["certificate_chain"] is None


def test_key_that_is_due_is_found_and_rotated(line: CommandLine) -> None:
    key = make_key(line, "settlement-due")
    assert line.answer("operator", "rotate", "--due", "--dry-run") == []
    words = ("--every", "90d", "--publish-lead", "7d", "--overlap", "1d")

    policy = line.answer("operator", "keys", "set-rotation", key, *words, *WHY)

    assert policy["rotation_policy"] == {"rotation_period": "90d", "publish_lead": "7d", "overlap": "1d"}
    due = datetime.fromisoformat(policy["next_rotation_time"]) - datetime.now(UTC)
    assert timedelta(days=82) < due < timedelta(days=84)
    assert b"every 90d; next begins" in line.run("operator", "keys", "show", key).stdout
    assert b"no key is due" in line.run("operator", "rotate", "--due").stdout
    ended = line.answer("operator", "keys", "set-rotation", key, "--never", *WHY)
    assert (ended["rotation_policy"], ended["next_rotation_time"]) == ({}, None)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--every", "1s"], "INVALID_FIELD"),
        (["--every", "1d", "--overlap", "2d"], "INVALID_FIELD"),
        (["--every", "1d", "--publish-lead", "2d"], "INVALID_FIELD"),
    ],
)
def test_rotation_policy_that_does_not_fit_is_refused(line: CommandLine, words: list[str], reason: str) -> None:
    key = make_key(line, f"settlement-unfit-{len(' '.join(words))}")

    assert line.refusal("operator", "keys", "set-rotation", key, *words, *WHY)["reason"] == reason


def test_activation_in_the_past_is_refused(line: CommandLine) -> None:
    key = make_key(line, "settlement-past")

    error = line.refusal("operator", "rotate", key, "--activate-at", "2020-01-01T00:00:00Z", *WHY)

    assert error["reason"] == "INVALID_FIELD"
    assert len(line.answer("operator", "keys", "show", key)["versions"]) == 1


def test_dry_run_and_validation_rotate_nothing(line: CommandLine) -> None:
    key = make_key(line, "settlement-dry")

    assert line.answer("operator", "rotate", key, "--dry-run", *WHY) == {"name": key, "would_rotate": True}
    plan = line.answer("operator", "rotate", "--all", "--dry-run", *WHY)

    assert key in [item["name"] for item in plan]
    assert len(line.answer("operator", "keys", "show", key)["versions"]) == 1


def test_emergency_rotates_every_key_and_says_which_ones_it_could_not(tmp_path: Path) -> None:
    state = make_state(tmp_path)
    line = CommandLine(state)
    with (tmp_path / "log").open("wb") as log, ApplianceProcess(state, log=log) as appliance:
        appliance.wait_until_ready()
        names = [make_key(line, name) for name in ("settlement-a", "settlement-b", "settlement-c")]
        line.answer("operator", "rotate", names[1], "--activate-at", "+1d", *WHY)

        unasked = line.run("operator", "rotate", "--all", *WHY)
        done = line.run("operator", "rotate", "--all", "--yes", "--json", *WHY)

        assert (unasked.returncode, b"say --yes" in unasked.stderr) == (ExitCode.USAGE, True)
        assert done.returncode == ExitCode.REFUSED, done
        outcomes = {outcome["name"]: outcome for outcome in json.loads(done.stdout)}
        assert outcomes[names[0]]["version"]["name"] == f"{names[0]}/versions/2"
        assert outcomes[names[1]]["error"]["reason"] == "ROTATION_IN_PROGRESS"
        assert outcomes[names[2]]["version"]["state"] == "ACTIVE"


def test_imported_pair_is_adopted_only_when_told_and_then_labelled_in_every_answer(tmp_path: Path) -> None:
    state = make_state(tmp_path)
    line = CommandLine(state)
    import_pair(state, tmp_path, "7a01")
    with (tmp_path / "log").open("wb") as log, ApplianceProcess(state, log=log) as appliance:
        appliance.wait_until_ready()
        made = make_key(line, "settlement-made")
        taken = line.answer("operator", "keys", "show", made)["primary"]["cka_id"]

        def adopt(cka_id: str) -> tuple[str, ...]:
            algorithm = ("--algorithm", "ECDSA_P256_SHA256")
            return ("keys", "adopt", "settlement-adopted", "--cka-id", cka_id, *algorithm, *WHY)

        assert line.refusal("operator", *adopt("00ff00ff"))["reason"] == "KEY_NOT_ON_TOKEN"
        assert line.run("operator", *adopt(taken)).returncode == ExitCode.REFUSED
        assert line.refusal("operator", *adopt("7a01"))["reason"] == "KEY_NOT_PROTECTED"
        adopted = line.answer("operator", *adopt("7a01"), "--allow-unprotected")

        assert (adopted["state"], adopted["origin"], adopted["local"]) == ("ACTIVE", "ADOPTED", False)
        shown = line.run("operator", "keys", "show", "settlement-adopted").stdout
        assert b"ADOPTED, NOT generated in the token" in shown
        assert [key["origin"] for key in line.answer("engine", "keys", "jwks", "--key", "settlement-adopted")["keys"]]
        signature = tmp_path / "payment.sig"
        line.answer(
            "engine", "sign", PAYMENT, "--key", "keys/settlement-adopted", "--format", "DER", "--out", signature
        )
        assert openssl_accepts(tmp_path / "pair.pub", signature, PAYMENT)


def import_pair(state: Path, folder: Path, cka_id: str) -> None:
    """Put a pair that was made outside onto the token, before the appliance has it."""
    pair, pkcs8 = folder / "pair.pem", folder / "pair.p8"
    openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", pair)
    openssl("pkcs8", "-topk8", "-nocrypt", "-in", pair, "-out", pkcs8)
    openssl("pkey", "-in", pair, "-pubout", "-out", folder / "pair.pub")
    pin = (state / "token" / "user.pin").read_text().strip()
    subprocess.run(
        [
            "softhsm2-util",
            "--import",
            pkcs8,
            "--token",
            "hsmsigner-dev",
            "--label",
            "old",
            "--id",
            cka_id,
            "--pin",
            pin,
        ],
        env={**os.environ, "SOFTHSM2_CONF": str(state / "token" / "softhsm2.conf")},
        check=True,
        capture_output=True,
    )
