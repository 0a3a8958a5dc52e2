"""`make run`: a development appliance that keeps its state, in the foreground."""

from __future__ import annotations

import argparse
import signal
import sys
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType

from hsmsigner.cli.appliance_process import ApplianceProcess
from hsmsigner.cli.output import ExitCode, print_fault, print_line, print_refusal
from hsmsigner.client import ProfileError, SignerClient, SigningClientError
from hsmsigner.errors import ConfigurationError
from hsmsigner.provision import DEFAULT_LISTEN, initialise_state

_KEY_ID = "settlement-eu"


def run(state: Path, listen: str) -> int:
    """Make the state folder on first use, serve, make a key if there is none, and say how to sign; until stopped."""
    if not (state / "hsmsigner.yaml").exists():
        initialise_state(state, now=datetime.now(UTC), listen=listen)
        print_line(f"made {state}")
    with ApplianceProcess(state) as appliance:
        appliance.wait_until_ready()
        with SignerClient.from_profile(state / "profiles" / "operator.yaml") as client:
            if f"keys/{_KEY_ID}" not in {key.name for key in client.list_keys()}:
                client.create_key(_KEY_ID, "ECDSA_P256_SHA256")
        print_line(
            f"\nready; state in {state}, Ctrl-C stops it. In another terminal, here:\n\n"
            f"  {_command()} sign demo/pacs009.xml --key keys/{_KEY_ID} --format DER"
            f" --profile {state / 'profiles' / 'engine.yaml'}\n"
        )
        return appliance.process.wait()


def _command() -> str:
    """How this environment's `hsmsigner` is called from the current folder."""
    command = Path(sys.executable).with_name("hsmsigner")
    return str(command.relative_to(Path.cwd()) if command.is_relative_to(Path.cwd()) else command)


def _stop(_signal: int, _frame: FrameType | None) -> None:
    # Unwinds through the context manager above, which stops the child in order.
    raise KeyboardInterrupt


def main() -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--state", type=Path, required=True)
    parser.add_argument("--listen", default=DEFAULT_LISTEN, help="used when the state folder is made")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, _stop)
    try:
        sys.exit(run(arguments.state, arguments.listen))
    except KeyboardInterrupt:
        sys.exit(ExitCode.DONE)
    except SigningClientError as error:
        sys.exit(print_refusal(error, as_json=False))
    except (ConfigurationError, ProfileError) as error:
        print_fault(str(error), as_json=False)
        sys.exit(ExitCode.CONFIGURATION)


if __name__ == "__main__":
    main()
