"""`hsmsigner keys history`: the versions of a key and when each one signs, at a glance."""

from __future__ import annotations

import shutil
import sys
from datetime import UTC, datetime
from typing import Any

import typer

from hsmsigner.cli.options import JsonOption, KeyArgument, ProfileOption, key_name
from hsmsigner.cli.output import print_json, print_line
from hsmsigner.cli.shown import enum_name, key_fields, rotation_text, version_fields
from hsmsigner.cli.timeline import Span, draw
from hsmsigner.client import SignerClient

_WIDEST = 120
_NARROW = 100
_LEAST_BAR = 20


def add_commands(app: typer.Typer) -> None:
    """Add it to `keys`."""
    app.command()(history)


def history(key: KeyArgument, profile: ProfileOption, *, as_json: JsonOption = False) -> None:
    """Show the versions of a key along a line of time: which one signs when, and what is to come.

    Example: hsmsigner keys history settlement-eu
    """
    name = key_name(key)
    with SignerClient.from_profile(profile) as client:
        found = client.get_key(name)
        versions = list(client.list_key_versions(name))
    if as_json:
        print_json({**key_fields(found), "versions": [version_fields(version) for version in versions]})
        return
    width = min(_WIDEST, shutil.get_terminal_size().columns)
    is_ascii = not (sys.stdout.encoding or "").lower().startswith("utf")
    for line in history_lines(found, versions, datetime.now(UTC), width, is_ascii=is_ascii):
        print_line(line)


def history_lines(key: Any, versions: list[Any], now: datetime, width: int, *, is_ascii: bool = False) -> list[str]:
    """The whole picture, newest version first, each line at most `width` wide but for the first two."""
    spans = [_span(version) for version in versions]
    rows = [(_label(version, key.primary.name), _when(version, now)) for version in versions]
    label_width = max(len(label) for label, _ in rows)
    when_width = max(len(when) for _, when in rows)
    is_narrow = width < max(_NARROW, label_width + when_width + _LEAST_BAR + 4)
    bar_width = max(_LEAST_BAR, width - 2 if is_narrow else width - label_width - when_width - 4)
    timeline = draw(spans, now.timestamp(), bar_width, is_ascii=is_ascii)
    indent = "" if is_narrow else " " * (label_width + 2)
    lines = [f"{key.name}  {enum_name(key, 'algorithm')}", f"rotates {rotation_text(key)}", ""]
    lines.append(indent + " " * timeline.now_column + ("v now" if is_ascii else "▼ now"))
    for (label, when), bar in reversed(list(zip(rows, timeline.bars, strict=True))):
        if is_narrow:
            lines += [f"{label}  {when}", bar.rstrip()]
        else:
            lines.append(f"{label.ljust(label_width)}  {bar}  {when}".rstrip())
    begin, end = (_short(datetime.fromtimestamp(time, UTC)) for time in (timeline.begin, timeline.end))
    lines.append(indent + begin + end.rjust(bar_width - len(begin)))
    lines.append(timeline.legend)
    return lines


def _span(version: Any) -> Span:
    def seconds(field: str) -> float | None:
        if not version.HasField(field):
            return None
        time = getattr(version, field)
        return float(time.seconds + time.nanos / 1e9)

    return Span(
        int(version.name.rpartition("/")[2]),
        enum_name(version, "state"),
        seconds("create_time") or 0.0,
        seconds("activate_time"),
        seconds("deactivate_time"),
    )


def _label(version: Any, primary: str) -> str:
    words = f"v{version.name.rpartition('/')[2]} {enum_name(version, 'state')}"
    words += " adopted" if enum_name(version, "origin") == "ADOPTED" else ""
    return words + (" primary" if version.name == primary else "")


def _when(version: Any, now: datetime) -> str:
    """What matters most of a version's times: what is to come, else since or until when it signed."""
    span = _span(version)
    moment = now.timestamp()
    state = span.state
    if state in ("DESTROY_SCHEDULED", "DESTROYED") and version.HasField("destroy_time"):
        gone = version.destroy_time.ToDatetime(UTC)
        return f"destroyed {_short(gone)}" + (f" ({_distance(gone, now)})" if gone > now else "")
    if span.activate is None:
        return f"made {_short(datetime.fromtimestamp(span.create, UTC))}, not activated"
    begin = datetime.fromtimestamp(span.activate, UTC)
    if span.activate > moment:
        return f"signs from {_short(begin)} ({_distance(begin, now)})"
    count = f", {version.signature_count} signatures" if version.signature_count else ""
    if span.deactivate is None:
        return f"since {_short(begin)}{count}"
    end = datetime.fromtimestamp(span.deactivate, UTC)
    left = f" ({_distance(end, now)})" if span.deactivate > moment else ""
    return f"until {_short(end)}{left}{count}"


def _short(time: datetime) -> str:
    return time.strftime("%Y-%m-%d %H:%M")


def _distance(time: datetime, now: datetime) -> str:
    seconds = max(0, int((time - now).total_seconds()))
    for unit, size in (("d", 86_400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * size:
            return f"in {seconds // size}{unit}"
    return f"in {seconds}s"
