"""Witnesses and push targets as the settings name them: what is wrong is said at start, without repeating secrets."""

from __future__ import annotations

import pytest

from hsmsigner.errors import ConfigurationError
from hsmsigner.transparency.note import KeyType, NoteKey
from hsmsigner.witness.setup import make_targets, make_witnesses
from tests.witness.twins import LogTwin, WitnessTwin

VKEY = WitnessTwin().key.vkey
URL = "https://witness.example/w1"


def test_a_witness_is_known_by_its_name() -> None:
    assert [witness.name for witness in make_witnesses([(VKEY, URL)])] == ["witness.example/w1"]


@pytest.mark.parametrize(
    "vkey",
    [
        "",
        "witness.example/w1",
        VKEY[:-4],
        VKEY.replace("witness.example/w1", "witness.example/w2"),
        VKEY.replace("witness.example/w1", "witness example"),
        NoteKey("witness.example/w1", KeyType.COSIGNATURE, b"short").vkey,
        LogTwin([]).key.vkey,
    ],
)
def test_a_key_that_is_no_witness_key_is_refused(vkey: str) -> None:
    with pytest.raises(ConfigurationError, match="number 1"):
        make_witnesses([(vkey, URL)])


def test_a_witness_cannot_be_counted_twice() -> None:
    same_key = NoteKey("witness.example/alias", KeyType.COSIGNATURE, WitnessTwin().key.public_key).vkey
    same_name = NoteKey("witness.example/w1", KeyType.COSIGNATURE, bytes(32)).vkey

    for other in (VKEY, same_key, same_name):
        with pytest.raises(ConfigurationError, match=r"number 2.*counted twice"):
            make_witnesses([(VKEY, URL), (other, "https://other.example/")])


WRONG_URLS = [
    "https://",
    "https:///path",
    "https://host:99999/",
    "https://host:port/",
    "https://host/#part",
    "https://[::1/",
    "https://host/a b",
    "https://host/\r\nX-Header: y",
    "https://h\u00f6st/",
    "ftp://host/",
    "host",
]


@pytest.mark.parametrize("url", WRONG_URLS)
def test_a_url_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match="number 1"):
        make_witnesses([(VKEY, url)])
    with pytest.raises(ConfigurationError, match="number 1"):
        make_targets([url])


@pytest.mark.parametrize("url", ["file://host/folder", "file:folder", "file://"])
def test_a_folder_must_be_an_absolute_path(url: str) -> None:
    with pytest.raises(ConfigurationError, match="three slashes"):
        make_targets([url])


def test_a_wrong_url_is_not_repeated() -> None:
    with pytest.raises(ConfigurationError) as caught:
        make_targets(["https://user:hunter2@host:port/"])
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://host/", "https://host"),
        ("https://host:443/a/", "https://host/a"),
        ("http://host:443/a?b=c", "http://host:443/a"),
        ("https://user:secret@[::1]:8443/a", "https://[::1]:8443/a"),
        ("file:///srv/check%20points", "file:///srv/check points"),
    ],
)
def test_what_is_shown_has_no_credentials(url: str, shown: str) -> None:
    assert make_targets([url])[0].shown == shown
