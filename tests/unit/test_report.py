"""The report adds up what the log says, and its page lets nothing through that a client wrote."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from hsmsigner.cli.report_data import STRETCHES, Report
from hsmsigner.cli.report_page import page

BEGIN = datetime(2026, 11, 20, tzinfo=UTC)


def record(kind: str, minutes: float = 1, **fields: Any) -> dict[str, Any]:
    time = (BEGIN + timedelta(minutes=minutes)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    return {"type": kind, "time": time, "principal": "cn:engine", "key": "keys/settlement-eu/versions/2"} | fields


def report(*records: dict[str, Any]) -> Report:
    found = Report(BEGIN, BEGIN + timedelta(hours=1))
    for fields in records:
        found.add(fields)
    return found


def test_outcomes_are_counted_per_key_and_principal() -> None:
    found = report(
        record("sign.completed"),
        record("sign.completed", key="keys/settlement-eu/versions/3"),
        record("sign.completed", principal="cn:other"),
        record("sign.failed"),
        record("appliance.started"),
    )
    assert found.counts["keys/settlement-eu", "cn:engine"] == {"signed": 2, "failed": 1}
    assert found.counts["keys/settlement-eu", "cn:other"] == {"signed": 1}
    assert found.records == 5


def test_refusals_counted_together_count_as_many() -> None:
    found = report(
        record("sign.denied", reason="QUOTA_EXCEEDED", rule="burst"),
        record("sign.denied", reason="QUOTA_EXCEEDED", count=9_992),
    )
    assert found.total("refused") == 9_993
    assert found.reasons == {"QUOTA_EXCEEDED (burst)": 1, "QUOTA_EXCEEDED": 9_992}


def test_the_peak_of_a_quota_is_where_most_of_its_limit_was_used() -> None:
    found = report(
        record("sign.authorized", debits=[{"quota": "day", "observed": 80, "limit": 100}]),
        record("sign.authorized", 5, debits=[{"quota": "day", "observed": 19, "limit": 20}]),
    )
    assert found.peaks["keys/settlement-eu", "day"].observed == 19


def test_time_falls_into_equal_stretches_and_never_outside() -> None:
    found = report(record("sign.completed", -1), record("sign.completed", 59.9), record("sign.completed", 61))
    assert found.over_time["signed"] == [1, *[0] * (STRETCHES - 2), 2]


def test_the_page_writes_out_what_a_client_named() -> None:
    found = report(
        record("sign.denied", principal="<script>alert(1)</script>", reason="<b>", key="keys/<i>"),
        record("sign.authorized", debits=[{"quota": "<u>", "observed": 1, "limit": 0}]),
    )
    text = page(found, "log<x>", "newest checkpoint: 3 records")
    assert not any(tag in text for tag in ("<script", "<b>KEY", "keys/<i>", "<u>", "log<x>"))
    assert "&lt;script&gt;" in text


def test_an_empty_period_is_a_page_too() -> None:
    assert "None." in page(report(), "log", "no checkpoint yet")
