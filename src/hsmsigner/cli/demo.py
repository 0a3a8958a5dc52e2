"""`make demo`: the story of the appliance in one screen. Every line is printed only after what it says was checked."""

from __future__ import annotations

import json
import os
import shlex
import socket
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from hsmsigner.cli.appliance_process import ApplianceProcess
from hsmsigner.cli.output import ExitCode
from hsmsigner.client.request_id import fresh_request_id
from hsmsigner.errors import ConfigurationError
from hsmsigner.provision import initialise_state

_KEY = "keys/settlement-eu"
# Types of records that the story is about, as the last step counts them.
_SHOWN = ("key.created", "key.activated", "key.continuity", "sign.authorized", "sign.completed", "sign.denied")


class DemoFailedError(Exception):
    """A step did not do what it claims."""


class Demo:
    """The steps in order; each raises `DemoFailedError` when it did not do what it says."""

    def __init__(self, state: Path, payment: Path, console: Console) -> None:
        self._state = state
        self._payment = payment
        self._console = console
        self._step = 0
        self._signature = state.parent / "payment.sig"
        self._public_key = state.parent / "settlement-eu.pem"
        self._request_id = fresh_request_id()

    def run(self) -> None:
        """Tell the whole story."""
        self._create_key()
        self._sign()
        self._verify_with_openssl()
        self._retry()
        self._rotate()
        self._follow_the_chain()
        self._run_into_the_quota()
        self._refuse_a_stranger()
        self._verify_the_log()

    def _create_key(self) -> None:
        key = self._succeeds("operator", "keys", "create", "settlement-eu")
        primary = key["primary"]
        promises = ("local", "always_sensitive", "never_extractable")
        _check(all(primary[promise] for promise in promises), f"the private key is not protected: {primary}")
        self._tell(
            "an operator makes a key in the token",
            f"{primary['name']}  {primary['algorithm']}",
            "private key: generated in the token, always sensitive, never extractable",
        )

    def _sign(self) -> None:
        answer = self._succeeds("engine", *self._sign_command(self._request_id, self._signature))
        self._tell(
            f"an engine signs {self._payment.name} (ISO 20022 pacs.009.001.08) over gRPC, mutual TLS",
            f"by {answer['name']}, {len(self._signature.read_bytes())} bytes of DER,"
            f" audit record {answer['audit_sequence']}",
        )

    def _verify_with_openssl(self) -> None:
        self._succeeds("engine", "keys", "public-key", _KEY, "--out", str(self._public_key))
        command = self._check_with_openssl(self._public_key, self._signature)
        forged = self._state.parent / "forged.xml"
        content = self._payment.read_bytes()
        forged.write_bytes(content.replace(b"1250000.00", b"9250000.00"))
        _check(forged.read_bytes() != content, "the forged payment is not different")
        bad = _run([*command, str(forged)])
        _check(bad.returncode != 0, "openssl accepts the signature for a changed amount")
        self._tell(
            "the openssl command checks the signature, with the public key alone",
            "payment: Verified OK     same payment with another amount: Verification failure",
        )

    def _retry(self) -> None:
        again = self._signature.with_suffix(".again")
        self._succeeds("engine", *self._sign_command(self._request_id, again))
        _check(again.read_bytes() == self._signature.read_bytes(), "the retry has another signature")
        debits = [
            record
            for record in self._records()
            if record["type"] == "sign.authorized" and record["request_id"] == self._request_id
        ]
        _check(len(debits) == 1, f"{len(debits)} debits for one request_id")
        self._tell("the engine retries with the same request_id", "same signature, byte for byte; counted once")

    def _check_with_openssl(self, public_key: Path, signature: Path) -> list[str]:
        """See that openssl accepts the payment's signature; the command, without the file."""
        command = ["openssl", "dgst", "-sha256", "-verify", str(public_key), "-signature", str(signature)]
        good = _run([*command, str(self._payment)])
        _check(good.returncode == 0 and "Verified OK" in good.stdout, f"openssl says {good.stdout}{good.stderr}")
        return command

    def _rotate(self) -> None:
        self._succeeds("operator", "rotate", _KEY, "--overlap", "1h", "--reason", "demo")
        signature, public_key = self._state.parent / "next.sig", self._state.parent / "next.pem"
        answer = self._succeeds("engine", *self._sign_command(fresh_request_id(), signature))
        _check(answer["name"] == f"{_KEY}/versions/2", f"signed by {answer['name']}")
        self._succeeds("engine", "keys", "public-key", answer["name"], "--out", str(public_key))
        self._check_with_openssl(public_key, signature)
        self._check_with_openssl(self._public_key, self._signature)
        self._tell(
            "an operator rotates the key; the engine names the same key and notices nothing",
            f"by {answer['name']}, Verified OK; what versions/1 signed stays good",
        )

    def _follow_the_chain(self) -> None:
        chain = self._state.parent / "chain.json"
        self._succeeds("engine", "keys", "continuity", _KEY, "--out", str(chain))
        verify = ("keys", "verify-continuity", str(chain), "--trusted", str(self._public_key))
        answer = self._succeeds("stranger", *verify)
        _check(answer["public_key"] == (self._state.parent / "next.pem").read_text(), f"the chain ends at {answer}")
        statement = json.loads(chain.read_text())["statements"][0]
        forged = statement | {"signed_by_old": statement["signed_by_new"]}
        chain.write_text(json.dumps({"key": _KEY, "statements": [forged]}))
        done = self._hsmsigner("stranger", verify)
        _check(done.returncode == ExitCode.VERIFICATION, f"a forged chain ended with {done.returncode}: {done.stdout}")
        self._tell(
            "a verifier who trusts only the first public key learns the second, offline",
            "each version signed the other's key: chain good     forged statement: found and named",
        )

    def _run_into_the_quota(self) -> None:
        limit = 5
        for _ in range(limit - 2):
            self._succeeds("engine", *self._sign_command(fresh_request_id(), self._state.parent / "more.sig"))
        error = self._is_refused("engine", "QUOTA_EXCEEDED", *self._sign_command(fresh_request_id()))
        metadata = error["metadata"]
        _check(metadata["rule"] == "quotas/burst" and metadata["limit"] == str(limit), f"not the quota meant: {error}")
        _check(error["retry_after_s"] is not None and error["retry_after_s"] > 0, f"no retry time: {error}")
        self._tell(
            f"{limit - 2} more are signed, and one too many is not: a rotation frees no quota",
            f"refused: QUOTA_EXCEEDED  rule {metadata['rule']}, observed {metadata['observed']},"
            f" limit {metadata['limit']}, retry in {error['retry_after_s']:.1f} s",
        )

    def _refuse_a_stranger(self) -> None:
        command = self._sign_command(fresh_request_id())
        self._is_refused("stranger", "KEY_NOT_FOUND_OR_FORBIDDEN", *command)
        # The answer must not tell whether the key is there.
        absent = ["keys/settlement-none" if word == _KEY else word for word in command]
        self._is_refused("engine", "KEY_NOT_FOUND_OR_FORBIDDEN", *absent)
        self._tell(
            "a client with a certificate and no grant tries to sign",
            "refused: KEY_NOT_FOUND_OR_FORBIDDEN, the very answer for a key that does not exist",
        )

    def _verify_the_log(self) -> None:
        records = self._records()
        # Without those about the log's own key, which the appliance makes when it likes.
        counts = Counter(record["type"] for record in records if record.get("key") != "keys/audit-log")
        expected = {"key.created": 1, "key.continuity": 1, "sign.authorized": 5, "sign.completed": 5}
        _check(
            all(counts[kind] == count for kind, count in expected.items()) and counts["sign.denied"] > 0,
            f"unexpected records: {counts}",
        )
        answer = self._succeeds("auditor", "audit", "verify")
        _check(answer["fault"] is None and answer["records"] >= len(records), f"the log does not verify: {answer}")
        self._tell(
            "an auditor reads the whole log and verifies it",
            "  ".join(f"{counts[kind]} {kind}" for kind in _SHOWN if counts[kind]),
            f"{answer['records']} records: chain unbroken, Merkle root {answer['root_hash'][:16]}…",
        )

    def _records(self) -> list[dict[str, Any]]:
        records: list[dict[str, Any]] = self._succeeds("auditor", "audit", "list", "--start", "0")
        return records

    def _sign_command(self, request_id: str, out: Path | None = None) -> list[str]:
        command = ["sign", str(self._payment), "--key", _KEY, "--format", "DER", "--request-id", request_id]
        return command if out is None else [*command, "--out", str(out)]

    def _succeeds(self, profile: str, *words: str) -> Any:
        """Run a command; its JSON."""
        done = self._hsmsigner(profile, words)
        _check(done.returncode == 0, f"`hsmsigner {shlex.join(words)}` ended with {done.returncode}: {done.stderr}")
        return json.loads(done.stdout)

    def _is_refused(self, profile: str, reason: str, *words: str) -> dict[str, Any]:
        """Run a command that must be refused; the error it gives."""
        done = self._hsmsigner(profile, words)
        _check(
            done.returncode == ExitCode.REFUSED,
            f"`hsmsigner {shlex.join(words)}` as {profile} ended with {done.returncode}: {done.stdout}{done.stderr}",
        )
        error: dict[str, Any] = json.loads(done.stderr)["error"]
        _check(error["reason"] == reason, f"refused for another reason: {error}")
        return error

    def _hsmsigner(self, profile: str, words: Sequence[str]) -> subprocess.CompletedProcess[str]:
        file = str(self._state / "profiles" / f"{profile}.yaml")
        return _run([sys.executable, "-m", "hsmsigner", *words, "--json"], HSMSIGNER_PROFILE=file)

    def _tell(self, title: str, *lines: str) -> None:
        self._step += 1
        self._console.print(Text(f"{self._step}. {title}", style="bold"), soft_wrap=True)
        for line in lines:
            self._console.print(Text.assemble(("   ✓ ", "green"), line), soft_wrap=True)


def _run(command: Sequence[str], **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603 - our own
        command, env=os.environ | environment, capture_output=True, text=True, check=False, timeout=60
    )


def _check(is_true: object, otherwise: str) -> None:
    if not is_true:
        raise DemoFailedError(otherwise)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def main() -> None:
    """Run the demo on a fresh appliance in a temporary folder; exit 0 only when every step did what it says."""
    payment = Path(sys.argv[1])
    console = Console(highlight=False, emoji=False)
    with tempfile.TemporaryDirectory(prefix="hsmsigner-demo-") as folder:
        state, log_file = Path(folder) / "appliance", Path(folder) / "serve.log"
        address = f"127.0.0.1:{_free_port()}"
        try:
            initialise_state(state, now=datetime.now(UTC), listen=address)
            with log_file.open("wb") as log, ApplianceProcess(state, log=log) as appliance:
                appliance.wait_until_ready()
                console.print(f"a fresh appliance on {address}: SoftHSM2 token, development CA, SQLite\n")
                Demo(state, payment, console).run()
                code = appliance.stop()
                _check(code == 0, f"the appliance stopped with exit code {code}")
        except (DemoFailedError, ConfigurationError, OSError) as error:
            console.print(Text.assemble(("the demo failed: ", "bold red"), str(error)), soft_wrap=True)
            if log_file.exists():
                sys.stderr.write("the end of the appliance's log:\n" + log_file.read_text("utf-8")[-4000:])
            sys.exit(ExitCode.REFUSED)
    console.print("\nstopped in order; everything it made is gone. `make run` starts one that stays.")


if __name__ == "__main__":
    main()
