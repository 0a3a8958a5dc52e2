"""A token on the other side of a socket: from a worker on the host, and from the appliance's image."""

from __future__ import annotations

import asyncio
import os
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from hsmsigner.operations.ports import SignStatus
from hsmsigner.process import EXIT_RESTART
from hsmsigner.provision import initialise_state
from hsmsigner.token.client import TokenClient
from tests.e2e.appliance import KEY, until
from tests.e2e_docker.project import StartAppliance, policy_with
from tests.signing_tasks import new_key
from tests.softhsm import SoftHsm
from tests.softhsm_container import SoftHsmContainer, docker

pytestmark = pytest.mark.serial
# Long enough that a busy machine's healthy calls stay below it.
CALL_TIMEOUT_S = 2.0
CLIENT_MODULE = "/usr/lib/x86_64-linux-gnu/pkcs11/p11-kit-client.so"


def behind_socket(softhsm: SoftHsmContainer, state: Path) -> SoftHsm:
    pin_file = state / "user.pin"
    pin_file.write_text(softhsm.user_pin)
    pin_file.chmod(0o600)
    token = {
        "label": softhsm.label,
        "module": str(softhsm.module),
        "pin": {"file": str(pin_file)},
        "environment": softhsm.environment,
        "call_timeout_s": CALL_TIMEOUT_S,
    }
    return SoftHsm(state, token)


def test_a_worker_signs_with_a_token_in_a_container(softhsm: SoftHsmContainer, tmp_path: Path) -> None:
    hsm = behind_socket(softhsm, tmp_path)

    async def use(client: TokenClient) -> list[SignStatus]:
        key = await new_key(client)
        return [outcome.status for outcome in await client.sign([key.task(b"%d" % number) for number in range(64)])]

    with hsm.start_worker():
        assert set(hsm.ask(use)) == {SignStatus.SIGNED}


def test_a_token_whose_container_hangs_costs_one_worker(softhsm: SoftHsmContainer, tmp_path: Path) -> None:
    hsm = behind_socket(softhsm, tmp_path)

    async def use(client: TokenClient) -> None:
        key = await new_key(client)
        softhsm.pause()
        (outcome,) = await client.sign([key.task(b"hangs")])
        assert outcome.status is SignStatus.UNKNOWN
        softhsm.unpause()
        assert await asyncio.to_thread(worker.wait) == EXIT_RESTART
        with hsm.start_worker():
            await client.wait_connected()
            assert (await client.sign([key.task(b"again")]))[0].status is SignStatus.SIGNED

    with hsm.start_worker() as worker:
        hsm.ask(use)


def test_a_test_may_kill_its_token_and_it_is_cleaned_away(softhsm: SoftHsmContainer) -> None:
    # The fixture's end is what is tested: it has nothing to stop any more.
    docker("kill", softhsm.container)

    assert docker("inspect", "--format", "{{.State.Running}}", softhsm.container) == "false"


@pytest.mark.timeout(300)
def test_the_image_serves_a_token_elsewhere_and_heals_when_it_hung(
    start_appliance: StartAppliance, tmp_path: Path
) -> None:
    settings, state, clients, socket = (tmp_path / name for name in ("settings", "state", "clients", "socket"))
    for folder in (state, clients, socket):
        folder.mkdir()
    initialise_state(settings, now=datetime.now(UTC), listen="0.0.0.0:8443", address_for_clients="127.0.0.1:8443")
    (settings / "policy.yaml").write_text(policy_with("unlimited"))
    file = settings / "hsmsigner.yaml"
    file.write_text(
        yaml.safe_dump(
            yaml.safe_load(file.read_text())
            | {
                "state_dir": "/var/lib/hsmsigner",
                "token": {
                    "label": "elsewhere",
                    "module": CLIENT_MODULE,
                    "pin": {"file": "/run/secrets/token_pin"},
                    "environment": {"P11_KIT_SERVER_ADDRESS": "unix:path=/run/pkcs11/pkcs11.sock"},
                    "call_timeout_s": CALL_TIMEOUT_S,
                },
            }
        )
    )
    (tmp_path / "pin").write_text("314159")
    user = f"{os.getuid()}:{os.getgid()}"
    variables = {
        "TEST_USER": user,
        "TEST_SETTINGS": str(settings),
        "TEST_STATE": str(state),
        "TEST_CLIENTS": str(clients),
        "SOFTHSM_USER": user,
        "SOFTHSM_SOCKET_FOLDER": str(socket),
        "HSMSIGNER_PIN_FILE": str(tmp_path / "pin"),
        "TOKEN_LABEL": "elsewhere",
        "TOKEN_PIN": "314159",
    }

    with start_appliance("remote", Path(__file__).with_name("remote-token.yaml"), **variables) as appliance:
        # Nobody hands certificates out here: they are the operator's own.
        host = appliance.folder / "clients" / "host"
        host.mkdir()
        (appliance.folder / "clients" / "tls").symlink_to(settings / "tls")
        for profile in (settings / "profiles").iterdir():
            (host / profile.name).write_text(profile.read_text().replace(":8443", f":{appliance.port}"))
        appliance.create_key()
        with appliance.client() as client:
            assert client.sign(KEY, b"one").signature

            appliance.compose("pause", "softhsm")
            until(lambda: not appliance.is_serving(), "health says that the token hangs", 90.0)
            appliance.compose("unpause", "softhsm")

            assert client.sign(KEY, b"two", timeout_s=120.0).signature
