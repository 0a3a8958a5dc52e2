"""Patterns over names: whole names, segment by segment."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hsmsigner.domain.pattern import Pattern


@pytest.mark.parametrize(
    ("pattern", "name", "is_match"),
    [
        ("keys/a", "keys/a", True),
        ("keys/a", "keys/ab", False),
        ("keys/a", "xkeys/a", False),
        ("keys/a", "Keys/a", False),
        ("keys/a", "keys/a/", False),
        ("keys/*", "keys/a", True),
        ("keys/*", "keys/", True),
        ("keys/*", "keys", False),
        ("keys/*", "keys/a/versions/1", False),
        ("keys/*/versions/*", "keys/a/versions/1", True),
        ("*", "keys/a", False),
        ("*", "keys", True),
        ("**", "keys/a/versions/1", True),
        ("**", "", True),
        ("keys/**", "keys/a/versions/1", True),
        ("keys/**", "keys", True),
        ("keys/**", "keysx/a", False),
        ("**/versions/*", "keys/a/versions/1", True),
        ("**/versions/*", "keys/a", False),
        ("keys/**/1", "keys/a/versions/1", True),
        ("keys/settlement-*", "keys/settlement-eu", True),
        ("keys/settlement-*", "keys/settlement-", True),
        ("keys/settlement-*", "keys/settlement", False),
        ("keys/*-eu", "keys/settlement-eu", True),
        ("keys/*-eu", "keys/settlement-eu2", False),
        ("keys/a*a", "keys/a", False),
        ("keys/a*a", "keys/aa", True),
        ("keys/a*b*c", "keys/axbxc", True),
        ("keys/a*b*c", "keys/acb", False),
        ("keys/a*bc*c", "keys/abc", False),
        ("spiffe://bank.example/settlement/*", "spiffe://bank.example/settlement/engine-1", True),
        ("spiffe://bank.example/settlement/*", "spiffe://bank.example/settlement/a/b", False),
        ("spiffe://bank.example/*", "spiffe://bankxexample/a", False),
        ("keys/a|keys/b", "keys/a", False),
        ("keys/.*", "keys/ab", False),
        ("keys/[a]", "keys/a", False),
        ("keys/a?", "keys/ab", False),
    ],
)
def test_a_pattern_matches_whole_names_only(pattern: str, name: str, is_match: bool) -> None:  # noqa: FBT001 - a table's column
    assert Pattern(pattern).matches(name) is is_match


def matches_by_definition(patterns: list[str], names: list[str]) -> bool:
    """The definition, without a thought to speed."""
    if not patterns:
        return not names
    first, *rest = patterns
    if first == "**":
        return any(matches_by_definition(rest, names[skipped:]) for skipped in range(len(names) + 1))
    expression = ".*".join(map(re.escape, first.split("*")))
    return bool(names) and re.fullmatch(expression, names[0]) is not None and matches_by_definition(rest, names[1:])


@settings(deadline=None, max_examples=500)
@given(
    pattern=st.lists(st.sampled_from(["**", "*", "a", "a*", "*a", "a*b", "*a*b*", "ab"]), min_size=1, max_size=5),
    name=st.lists(st.text("ab", max_size=4), min_size=1, max_size=6),
)
def test_a_pattern_matches_what_the_definition_says(pattern: list[str], name: list[str]) -> None:
    assert Pattern("/".join(pattern)).matches("/".join(name)) is matches_by_definition(pattern, name)


@given(name=st.text("ab-/", max_size=30))
def test_a_name_matches_itself(name: str) -> None:
    assert Pattern(name).matches(name)


@pytest.mark.parametrize(
    ("pattern", "name"),
    [
        ("*a" * 200 + "b", "a" * 20_000),
        ("/".join(["*a*a*a*b"] * 200), "/".join(["a" * 100] * 200)),
        ("/".join(["**", "a"] * 85) + "/b", "/".join(["a"] * 256)),
        ("x/" + "/".join(["**"] * 170), "/".join(["a"] * 256)),
    ],
)
def test_no_pattern_is_slow(pattern: str, name: str) -> None:
    started = time.process_time()
    assert not Pattern(pattern).matches(name)
    assert time.process_time() - started < 1
