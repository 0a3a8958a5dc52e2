"""Looks at the token from a process of its own: a module that hangs or crashes costs the doctor nothing.

`python -m hsmsigner.doctor.token_probe CONFIG` prints one JSON object. It logs in exactly once. Never to be run while
an appliance runs on the same token: SoftHSM2 is not safe for two processes (NoSuchToken, GeneralError).
"""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from threading import Lock
from typing import Any

from hsmsigner.config import load_settings
from hsmsigner.doctor.finding import Finding, fault, fine, warning
from hsmsigner.doctor.memory import check_memory
from hsmsigner.domain.algorithm import ALGORITHMS
from hsmsigner.errors import ConfigurationError
from hsmsigner.operations.ports import TreeHead
from hsmsigner.token.faults import TokenError
from hsmsigner.token.memory import TokenMemories
from hsmsigner.token.module import PinRefusedError, TokenModule, open_module
from hsmsigner.token.sessions import TokenSession

_TIMEOUT_S = 30.0


class ProbeError(Exception):
    """The token could not be looked at; `way_out` is what to do."""

    def __init__(self, message: str, way_out: str) -> None:
        super().__init__(message)
        self.way_out = way_out


def probe_token(config: Path) -> dict[str, Any]:
    """Load the module, find the token, log in once, list mechanisms and recall the log; all in a child process.

    Raises:
        ProbeError: the module hangs or crashes, or there is a fault of the token or its set-up.
    """
    try:
        done = subprocess.run(  # noqa: S603 - this very interpreter and package
            [sys.executable, "-m", "hsmsigner.doctor.token_probe", str(config)],
            capture_output=True,
            text=True,
            check=False,
            timeout=_TIMEOUT_S,
        )
    except subprocess.TimeoutExpired as error:
        raise ProbeError(
            f"the PKCS#11 module did not answer within {_TIMEOUT_S:.0f} s",
            "is the device connected, and its network or daemon up? Try the vendor's own tool",
        ) from error
    if done.returncode != 0:
        cause = signal.Signals(-done.returncode).name if done.returncode < 0 else f"exit code {done.returncode}"
        raise ProbeError(
            f"the PKCS#11 module brought its process down ({cause})", "try the vendor's own tool, or its update"
        )
    # The last line is ours; what comes before, the module may have printed.
    report: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    if "fault" in report:
        raise ProbeError(report["fault"], report["way_out"])
    return report


def check_token(config: Path) -> Iterator[Finding]:
    """Look at a token that no appliance uses, and hold the log against what it remembers."""
    try:
        report = probe_token(config)
    except ProbeError as error:
        yield fault("token", str(error), error.way_out)
        return
    yield from findings_of(report)
    yield from check_memory(load_settings(config), remembered_in(report))


def remembered_in(report: Mapping[str, Any]) -> TreeHead | None:
    """What the probe found the token to remember of the log."""
    memory = report["memory"]
    return None if memory is None else TreeHead(memory["size"], bytes.fromhex(memory["root"]))


def findings_of(report: Mapping[str, Any]) -> Iterator[Finding]:
    """Put what the probe, or a running token worker, reports into words."""
    yield fine("token", f"{report['label']!r} (serial {report['serial']}) in {report['module']}")
    able = report["algorithms"]
    missing = [name for name in ALGORITHMS if not isinstance(able, list) or name not in able]
    if len(missing) == len(ALGORITHMS):
        yield fault(
            "mechanisms",
            "the token has no mechanism that this appliance signs with",
            "is it the right token? It must have key generation and signing for RSA, EC or EdDSA",
        )
    elif missing:
        yield warning(
            "mechanisms",
            f"the token lacks the mechanisms for {', '.join(missing)}",
            "nothing to do unless you need one of these; creating such a key is refused",
        )
    else:
        yield fine("mechanisms", f"all {len(ALGORITHMS)} algorithms")


def _probe(config: Path) -> dict[str, Any]:
    whole = load_settings(config)
    settings = whole.token
    try:
        pin = settings.pin.read()
        with contextlib.ExitStack() as stack:
            module = open_module(settings)
            stack.callback(_close, module)
            module.login(pin)
            session = TokenSession(module.cryptoki, module.open_session())
            memory = TokenMemories(Lock()).recall(session, whole.audit.origin)
            return {
                "label": module.label,
                "serial": module.serial,
                "module": module.description,
                "algorithms": module.algorithms(),
                "memory": None if memory is None else {"size": memory.size, "root": memory.root_hash.hex()},
            }
    except PinRefusedError as error:
        way_out = "one try was spent on this; correct the PIN before you run doctor or serve again"
        return {"fault": str(error), "way_out": way_out}
    except ConfigurationError as error:
        return {"fault": str(error), "way_out": "correct `token:` in the settings, or the token's own set-up"}
    except TokenError as error:
        return {
            "fault": f"the token failed in {error.cause}",
            "way_out": "look at the device with the vendor's own tool",
        }


def _close(module: TokenModule) -> None:
    # What is being reported matters more than how the module takes its leave.
    with contextlib.suppress(TokenError):
        module.close()


if __name__ == "__main__":
    sys.stdout.write("\n" + json.dumps(_probe(Path(sys.argv[1]))))
    sys.stdout.flush()
