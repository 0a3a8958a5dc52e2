from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from hsmsigner.cli.bench_log import LogReport, LogRow


def report(p50_ms: float, ratio: float) -> LogReport:
    return LogReport(1, 1.0, 1.0, (LogRow("start", p50_ms, 9999, 1000), LogRow("append", 9999, 9999)), ratio, 1.1, "")


def test_what_is_above_its_bound_is_missed() -> None:
    assert report(1000, 1.1).missed == ()
    assert report(1001, 1.11).missed == ("start", "append, against an empty log")


@pytest.mark.serial
def test_a_log_is_built_and_measured_from_end_to_end(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hsmsigner", "bench", "--json", "--log", "30000", "--directory", str(tmp_path)]
    run = subprocess.run(command, capture_output=True, check=False, timeout=110)
    assert run.returncode == 0, run.stderr.decode()
    found = json.loads(run.stdout)
    assert found["records"] == 30_000
    assert {row["name"] for row in found["rows"]} >= {"start", "inclusion proof", "consistency proof", "all refusals"}
    assert all(0 < row["p50_ms"] <= row["max_ms"] for row in found["rows"])
    assert list(tmp_path.iterdir()) == []
