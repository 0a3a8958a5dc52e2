from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest

from hsmsigner.cli.bench_appliance import disk_of
from hsmsigner.cli.bench_limits import echo_server, run_echo_load
from hsmsigner.cli.bench_load import LoadPlan, closed_loop
from hsmsigner.cli.bench_report import Measurement, aims_of
from hsmsigner.client import InvalidRequest


def measurement(of_token: float | None = None, of_echo: float | None = None) -> Measurement:
    return Measurement("", 1.0, 1.0, 1.0, of_token, of_echo)


def test_load_makes_as_many_signatures_as_asked_for() -> None:
    calls = 0

    async def call() -> None:
        nonlocal calls
        calls += 1

    result = asyncio.run(closed_loop(call, LoadPlan("batch", 4, items=64, signatures=1000)))
    assert calls == result.calls == 16
    assert result.rate > 0


def test_a_load_counts_calls_by_when_they_end() -> None:
    now_s = 0.0
    ends = []

    async def call() -> None:
        nonlocal now_s
        now_s += 0.3
        ends.append(now_s)

    # The half second of warm-up cuts the second, which counts; the end cuts the fourth, which does not.
    result = asyncio.run(closed_loop(call, LoadPlan("unary", 1, seconds=0.5), lambda: now_s))
    assert ends == pytest.approx([0.3, 0.6, 0.9, 1.2])
    assert (result.calls, result.rate) == (2, 4)


def test_load_never_has_more_in_flight_than_planned() -> None:
    now = most = 0

    async def call() -> None:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(0)
        now -= 1

    asyncio.run(closed_loop(call, LoadPlan("stream", 7, signatures=200)))
    assert most == 7


def test_failed_calls_are_counted_and_stop_the_run_when_there_are_many() -> None:
    async def call() -> None:
        await asyncio.sleep(0)
        raise InvalidRequest("INVALID_FIELD", "no")

    result = asyncio.run(closed_loop(call, LoadPlan("stream", 4, seconds=60)))
    assert 50 <= result.failures < 60
    assert result.rate == 0
    assert result.first_failure == "INVALID_FIELD: no"


def test_aims_are_met_at_their_bound_and_missed_below() -> None:
    unary, stream = measurement(of_echo=0.4), measurement(of_token=0.349)
    aims = aims_of((unary, stream, measurement(of_token=0.5)), 149.9)
    assert [aim.is_met for aim in aims] == [True, False, True, True]


def test_memory_that_cannot_be_read_is_neither_met_nor_missed() -> None:
    rows = (measurement(of_echo=1.0), measurement(of_token=1.0), measurement(of_token=1.0))
    assert aims_of(rows, None)[-1].is_met is None


def test_disk_of_proc_is_proc() -> None:
    assert disk_of(Path("/proc/self")) == "proc"


def test_empty_echo_is_measured_over_mtls() -> None:
    with echo_server() as (address, credentials):
        result = run_echo_load(address, credentials, LoadPlan("unary", 8, signatures=100))
    assert (result.calls, result.failures) == (100, 0)


@pytest.mark.serial
def test_bench_runs_from_end_to_end_and_no_signature_fails(tmp_path_factory: pytest.TempPathFactory) -> None:
    # A short name: the path of a Unix socket has room for 107 bytes.
    directory = tmp_path_factory.mktemp("b")
    command = [sys.executable, "-m", "hsmsigner", "bench", "--json", "--rounds", "2", "--seconds", "0.5"]
    command += ["--signatures", "200", "--directory", str(directory)]
    run = subprocess.run(command, capture_output=True, check=False, timeout=110)
    assert run.returncode == 0, run.stderr.decode()
    report = json.loads(run.stdout)
    assert report["failures"] == []
    assert report["signatures"] >= 200
    assert [row["name"].partition(",")[0] for row in report["measurements"]] == [
        *("bare token", "empty mTLS echo", "Sign", "Sign", "StreamSign", "BatchSign(64)"),
    ]
    assert all(row["rate"] > 0 for row in report["measurements"])
    assert report["frontend_rss_mib"] > 0
    assert list(directory.iterdir()) == []
