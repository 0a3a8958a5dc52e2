"""The picture that `keys history` draws."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from hsmsigner.cli.key_history import history_lines
from hsmsigner.cli.timeline import Span, draw
from hsmsigner.client.rotation import RotationPolicy
from hsmsigner.pb import resources_pb2

DAY = 86_400.0
NOW = datetime(2026, 11, 20, 10, tzinfo=UTC)
# Version 1 signed for ten days, 2 signs since five days and overlapped it by one, 3 is to take over in five.
SPANS = [
    Span(1, "DEACTIVATED", 0, 0, 11 * DAY),
    Span(2, "ACTIVE", 9 * DAY, 10 * DAY, None),
    Span(3, "PRE_ACTIVATION", 14 * DAY, 20 * DAY, None),
]


def test_each_version_has_a_bar_that_shows_when_it_signs() -> None:
    timeline = draw(SPANS, 15 * DAY, 20)

    assert timeline.bars == (
        "██████████▒         ",
        "         ·█████     ",
        "              ······",
    )
    assert timeline.now_column == 15
    assert "█ signs" in timeline.legend
    assert "suspended" not in timeline.legend


def test_overlap_that_is_to_come_is_shown_as_such() -> None:
    spans = [Span(1, "ACTIVE", 0, 0, 12 * DAY), Span(2, "ACTIVE", 8 * DAY, 9 * DAY, None)]

    timeline = draw(spans, 10 * DAY, 12)

    assert timeline.bars == ("█████████▒░░", "        ·█  ")


def test_version_that_signed_for_less_than_a_column_is_seen() -> None:
    spans = [Span(1, "DEACTIVATED", 0, 0, 60), Span(2, "ACTIVE", 30, 60, None)]

    assert draw(spans, 100 * DAY, 30).bars[0].strip() == "█"


def test_terminal_without_unicode_gets_ascii() -> None:
    timeline = draw(SPANS, 15 * DAY, 20, is_ascii=True)

    assert all((bar + timeline.legend).isascii() for bar in timeline.bars)


def test_key_made_this_very_second_is_drawn() -> None:
    assert len(draw([Span(1, "ACTIVE", 5.0, 5.0, None)], 5.0, 20).bars[0]) == 20


def version(number: int, state: int, days_ago: float, **times: float) -> resources_pb2.KeyVersion:
    made = resources_pb2.KeyVersion(
        name=f"keys/settlement-eu/versions/{number}",
        state=state,  # type: ignore[arg-type] # a number of the enum
        origin=resources_pb2.KEY_ORIGIN_GENERATED,
        signature_count=number * 7,
    )
    made.create_time.FromDatetime(NOW - timedelta(days=days_ago))
    for name, in_days in times.items():
        getattr(made, name).FromDatetime(NOW + timedelta(days=in_days))
    return made


VERSIONS = [
    version(1, resources_pb2.KEY_STATE_DESTROY_SCHEDULED, 90, activate_time=-90, deactivate_time=-30, destroy_time=10),
    version(2, resources_pb2.KEY_STATE_ACTIVE, 37, activate_time=-31),
    version(3, resources_pb2.KEY_STATE_PRE_ACTIVATION, 1, activate_time=6),
]


def key() -> resources_pb2.Key:
    policy = RotationPolicy(rotation_period=timedelta(days=90), overlap=timedelta(days=1)).message()
    found = resources_pb2.Key(name="keys/settlement-eu", primary=VERSIONS[1], rotation_policy=policy)
    found.next_rotation_time.FromDatetime(NOW + timedelta(days=50))
    return found


def test_history_is_read_at_a_glance() -> None:
    lines = history_lines(key(), VERSIONS, NOW, 120)

    assert lines[1] == "rotates every 90d; next begins 2027-01-09T10:00:00Z"
    assert [line.split("  ")[0] for line in lines[4:7]] == [
        "v3 PRE_ACTIVATION",
        "v2 ACTIVE primary",
        "v1 DESTROY_SCHEDULED",
    ]
    assert lines[4].endswith("signs from 2026-11-26 10:00 (in 6d)")
    assert lines[5].endswith("since 2026-10-20 10:00, 14 signatures")
    assert lines[6].endswith("destroyed 2026-11-30 10:00 (in 10d)")


@pytest.mark.parametrize("width", [40, 60, 80, 99, 120])
def test_history_fits_the_terminal(width: int) -> None:
    for line in history_lines(key(), VERSIONS, NOW, width)[3:-1]:
        assert len(line) <= max(width, 57), line
