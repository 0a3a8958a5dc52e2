"""P2-P5 where a container is killed or paused under load."""

from __future__ import annotations

from datetime import datetime

import pytest

from tests.builder import read_log
from tests.e2e.appliance import KEY, until
from tests.e2e.test_kill_under_load import Load, check_log
from tests.e2e_docker.project import ComposeAppliance

pytestmark = [pytest.mark.serial, pytest.mark.timeout(240)]
KILLS = 3
BURST, WINDOW_S = 200, 2
QUOTAS = f"[{{id: burst, count: {BURST}, per: {WINDOW_S}s}}, {{id: long, count: 100000, per: 1h}}]"


@pytest.fixture(autouse=True)
def _quotas(appliance: ComposeAppliance) -> None:
    appliance.publish_quotas(QUOTAS)


def flows(load: Load, count: int = 100) -> None:
    before = len(load.released)
    until(lambda: len(load.released) >= before + count, f"{count} signatures are released", 60.0)


def test_docker_kill_under_load_loses_no_record_breaks_no_quota_and_a_retry_gives_the_same_signature(
    appliance: ComposeAppliance,
) -> None:
    with Load(appliance) as load:  # type: ignore[arg-type] # has the client() and the database that Load asks for
        for _ in range(KILLS):
            flows(load)
            appliance.compose("kill", "hsmsigner")
            appliance.compose("start", "hsmsigner")
        flows(load)

    with appliance.client() as client:
        for request_id, signature in list(load.released.items())[-20:]:
            assert client.sign(KEY, request_id.encode(), request_id=request_id) == signature
    assert load.failures == []
    appliance.compose("stop", "hsmsigner")
    appliance.copy_store()
    appliance.compose("start", "hsmsigner")
    appliance.wait_until_serving()
    check_log(appliance, load)  # type: ignore[arg-type] # as above
    records = read_log(appliance.database)
    assert sum(record["type"] == "appliance.started" for record in records) >= KILLS + 1
    assert max(authorized_within_window(records)) <= BURST


def authorized_within_window(records: list[dict[str, object]]) -> list[int]:
    """For each counted authorization: how many there are in the window that begins with it."""
    instants = [
        datetime.fromisoformat(str(record["time"])).timestamp()
        for record in records
        if record["type"] == "sign.authorized" and record["debits"]
    ]
    return [
        sum(start <= instant < start + WINDOW_S for instant in instants[index : index + BURST + 1])
        for index, start in enumerate(instants)
    ]


def test_a_paused_container_answers_nobody_and_loses_nothing(appliance: ComposeAppliance) -> None:
    with Load(appliance) as load:  # type: ignore[arg-type] # as above
        flows(load)
        appliance.compose("pause", "hsmsigner")
        assert not appliance.is_serving()
        paused_at = len(load.released)
        appliance.compose("unpause", "hsmsigner")
        flows(load)

    assert load.failures == []
    assert len(load.released) > paused_at
    appliance.copy_store()
    check_log(appliance, load)  # type: ignore[arg-type] # as above
