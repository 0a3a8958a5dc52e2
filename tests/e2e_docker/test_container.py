"""A development appliance in its container: signing across the wall, up twice, demo, hardening."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from hsmsigner.client import QuotaExceeded, Refused
from tests.e2e_docker.project import DOCKER, STATE, ComposeAppliance
from tests.softhsm_container import docker

pytestmark = pytest.mark.serial


def test_a_signature_made_in_the_container_verifies_with_the_openssl_command_outside(
    appliance: ComposeAppliance, tmp_path: Path
) -> None:
    with appliance.client() as client:
        signed = client.sign("keys/settlement-eu", b"a payment", output_format="DER")
        (tmp_path / "key.pem").write_text(client.get_public_key("keys/settlement-eu").pem)
    (tmp_path / "signature").write_bytes(signed.signature)
    (tmp_path / "message").write_bytes(b"a payment")

    verdict = subprocess.run(
        ["openssl", "dgst", "-sha256", "-verify", "key.pem", "-signature", "signature", "message"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )

    assert verdict.stdout == "Verified OK\n"


def test_a_client_without_a_grant_is_refused(appliance: ComposeAppliance) -> None:
    with appliance.client("stranger") as client, pytest.raises(Refused) as caught:
        client.sign("keys/settlement-eu", b"a payment")

    assert caught.value.reason == "KEY_NOT_FOUND_OR_FORBIDDEN"


def test_the_demo_container_signs_and_verifies(appliance: ComposeAppliance) -> None:
    output = appliance.compose("--profile", "demo", "run", "--rm", "--no-deps", "demo")

    assert "the signature verifies" in output


def test_a_restart_keeps_keys_quotas_and_log(appliance: ComposeAppliance) -> None:
    appliance.publish_quotas("[{id: few, count: 5, per: 1h}]")
    appliance.create_key("settlement-restart")
    with appliance.client() as client:
        before = [client.sign("keys/settlement-restart", b"%d" % number) for number in range(3)]

    appliance.compose("restart", "hsmsigner")
    appliance.wait_until_serving()

    with appliance.client() as client:
        again = client.sign("keys/settlement-restart", b"0", request_id=before[0].request_id)
        assert again == before[0]
        for number in range(2):
            client.sign("keys/settlement-restart", b"more %d" % number)
        with pytest.raises(QuotaExceeded) as caught:
            client.sign("keys/settlement-restart", b"one too many")
    assert (caught.value.observed, caught.value.limit) == ("5", "5")
    with appliance.client("auditor") as client:
        records = [json.loads(record.record) for record in client.list_audit_records()]
    assert [record["sequence"] for record in records] == list(range(len(records)))
    assert {signature.audit_sequence for signature in before} <= {record["sequence"] for record in records}


def test_down_and_up_again_make_no_second_token_and_keep_the_keys(appliance: ComposeAppliance) -> None:
    tokens = f"import os; print(os.listdir('{STATE}/token/tokens'))"
    before = appliance.python(tokens)

    appliance.up()
    appliance.compose("down")
    appliance.up()

    assert appliance.python(tokens) == before
    assert len(json.loads(before.replace("'", '"'))) == 1
    with appliance.client("operator") as client:
        assert "keys/settlement-eu" in {key.name for key in client.list_keys()}


def test_the_pin_is_in_no_environment_and_in_no_log(appliance: ComposeAppliance) -> None:
    pin = (DOCKER / "secrets" / "development.pin").read_text().strip()
    container = appliance.compose("ps", "--quiet", "hsmsigner")

    assert appliance.python("print(open('/run/secrets/token_pin').read())") == pin
    assert pin not in docker("inspect", container)
    assert pin not in appliance.compose("logs", "hsmsigner")


def test_the_container_can_do_as_little_as_it_needs(appliance: ComposeAppliance) -> None:
    (described,) = json.loads(docker("inspect", appliance.compose("ps", "--quiet", "hsmsigner")))
    host = described["HostConfig"]
    status = dict(
        line.split(":\t", 1) for line in appliance.python("print(open('/proc/1/status').read())").splitlines() if line
    )

    assert host["ReadonlyRootfs"]
    assert host["CapDrop"] == ["ALL"]
    assert "no-new-privileges:true" in host["SecurityOpt"]
    assert host["Memory"] == 512 * 2**20
    assert host["PidsLimit"] == 128
    assert host["CpuQuota"] == 2 * host["CpuPeriod"]
    assert host["LogConfig"]["Type"] == "local"
    assert host["RestartPolicy"]["Name"] == "unless-stopped"
    assert {binding["HostIp"] for binding in host["PortBindings"]["8443/tcp"]} == {"127.0.0.1"}
    assert set(status["Uid"].split()) == {"10001"}
    assert {int(status[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {0}
    assert status["NoNewPrivs"] == "1"
