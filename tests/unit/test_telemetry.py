"""The operational log: one JSON object per line, and never a message or a secret."""

from __future__ import annotations

import json
import logging
from pathlib import PurePosixPath

import pytest

from hsmsigner.config import Secret
from hsmsigner.telemetry import JsonFormatter


def line(text: str = "text", *args: object, **extra: object) -> str:
    record = logging.getLogger("hsmsigner.test").makeRecord(
        "hsmsigner.test", logging.WARNING, __file__, 1, text, args, None, extra=extra
    )
    return JsonFormatter("frontend").format(record)


def test_a_line_says_when_how_bad_where_and_what() -> None:
    fields = json.loads(line("%d keys", 3, key="keys/a", attempt=2))
    assert fields.pop("time").endswith("+00:00")
    assert fields == {
        "level": "WARNING",
        "process": "frontend",
        "logger": "hsmsigner.test",
        "text": "3 keys",
        "key": "keys/a",
        "attempt": 2,
    }


@pytest.mark.parametrize("text", ["two\nlines", "\x1b[2Jclear", 'quote"', "\u2028", "{json}"])
def test_no_text_breaks_out_of_its_line(text: str) -> None:
    printed = line(text, note=text)
    assert "\n" not in printed
    assert "\x1b" not in printed
    assert json.loads(printed)["text"] == json.loads(printed)["note"] == text


@pytest.mark.parametrize("value", [b"SECRET-bytes", bytearray(b"SECRET-bytes"), memoryview(b"SECRET-bytes")])
def test_bytes_are_never_printed(value: object) -> None:
    printed = line(anything=value)
    assert json.loads(printed)["anything"] == "(hidden)"
    assert "SECRET" not in printed


@pytest.mark.parametrize("value", [[b"SECRET"], {"inner": b"SECRET"}, (1, [b"SECRET"]), {"inner": {"pin": "SECRET"}}])
def test_nor_are_they_when_something_else_holds_them(value: object) -> None:
    assert "SECRET" not in line(anything=value)


@pytest.mark.parametrize(
    "name", ["pin", "user_pin", "so_pin", "PIN", "secret", "password", "private_key", "message_bytes", "body"]
)
def test_a_field_with_a_secret_name_is_never_printed(name: str) -> None:
    printed = line(**{name: "12345678"})
    assert json.loads(printed)[name] == "(hidden)"
    assert "12345678" not in printed


def test_a_secret_value_hides_under_any_name() -> None:
    printed = line("starting with %s and %r", Secret("12345678"), Secret("12345678"), value=Secret("12345678"))
    assert "12345678" not in printed


def test_an_exception_is_one_field_of_the_line() -> None:
    fault = ValueError("two\nlines")
    record = logging.getLogger("x").makeRecord(
        "x", logging.ERROR, __file__, 1, "failed", (), (ValueError, fault, fault.__traceback__)
    )
    printed = JsonFormatter("token-worker").format(record)
    assert "\n" not in printed
    assert "ValueError: two\nlines" in json.loads(printed)["exception"]
    assert json.loads(printed)["process"] == "token-worker"


def test_a_value_that_json_lacks_is_still_printed() -> None:
    assert json.loads(line(where=PurePosixPath("/run")))["where"] == "/run"
