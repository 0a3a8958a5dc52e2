"""YAML as we read it: the plain subset, and nothing that a hostile document could make of the rest."""

from __future__ import annotations

import time

import pytest

from hsmsigner.domain.positioned_yaml import MAX_DOCUMENT_BYTES, DocumentError, PositionedYaml, Problem


def only_problem(document: bytes) -> Problem:
    with pytest.raises(DocumentError) as caught:
        PositionedYaml(document)
    (problem,) = caught.value.problems
    return problem


def test_plain_values_are_read_as_they_are() -> None:
    source = PositionedYaml(b"a: 1\nb: [x, 1.5, true, null, {c: 'd'}]\n")
    assert source.data == {"a": 1, "b": ["x", 1.5, True, None, {"c": "d"}]}


def test_a_problem_knows_where_its_field_stands() -> None:
    source = PositionedYaml(b"a: 1\nb:\n  - x\n  - {c: d}\n")
    assert source.problem(("b", 1, "c"), "no") == Problem(4, 9, "b[1].c", "no")
    assert source.problem(("b", 1, "gone"), "no") == Problem(4, 5, "b[1].gone", "no")
    assert source.problem(("b", 7), "no") == Problem(3, 3, "b[7]", "no")
    assert source.problem((), "no") == Problem(1, 1, "(document)", "no")


@pytest.mark.parametrize(
    ("problem", "text"),
    [
        (Problem(3, 4, "a.b", "is missing"), "line 3, column 4: a.b: is missing"),
        (Problem(0, 0, "(document)", "is not UTF-8"), "(document): is not UTF-8"),
    ],
)
def test_a_problem_reads_as_one_line(problem: Problem, text: str) -> None:
    assert str(problem) == text


@pytest.mark.parametrize(
    ("document", "line", "words"),
    [
        (b"", 1, "is empty"),
        (b"# only a comment\n", 1, "is empty"),
        (b"a: &x 1\nb: *x\n", 2, "aliases are not allowed"),
        (b"a: &x [*x]\n", 1, "aliases are not allowed"),
        (b"a: {b: 1}\nc: {<<: {d: 1}}\n", 2, "a key must be a plain word"),
        (b"a: 1\n? [b]\n: 2\n", 2, "a key must be a plain word"),
        (b"a: 1\n2: b\n", 2, "a key must be a plain word"),
        (b"yes: b\n", 1, "a key must be a plain word"),
        (b"a: 1\nb: !!python/object/apply:os.system [id]\n", 2, "only plain text"),
        (b"a: !!binary aGk=\n", 1, "only plain text"),
        (b"a: !secret x\n", 1, "only plain text"),
        (b"a: !!set {b}\n", 1, "only plain text"),
        (b"a: 2026-01-01\n", 1, "only plain text"),
        (b"a: 1\n--- \nb: 2\n", 2, "another document"),
        (b"a: [1\n", 2, "expected"),
        (b"a: 1\n b: 2\n", 2, "mapping values are not allowed"),
        (b"\ta: 1\n", 1, "cannot start any token"),
        (b"a: 'x\n", 2, "end of stream"),
        (b"%YAML 9.0\n---\na: 1\n", 1, "incompatible"),
        (b"a: 1\x00\n", 0, "is not readable YAML"),
        (b"a: \x1b[2J\n", 0, "is not readable YAML"),
        (b"a: \xff\n", 0, "is not UTF-8"),
        (b"\xff\xfea\x00:\x00", 0, "is not UTF-8"),
        (b"a: \xed\xa0\x80\n", 0, "is not UTF-8"),
        (b"a: !!int ''\n", 0, "has a value that cannot be read"),
        (b"a: !!int '-'\n", 0, "has a value that cannot be read"),
        (b"a: !!float ''\n", 0, "has a value that cannot be read"),
        (b"a: !!bool maybe\n", 0, "has a value that cannot be read"),
        (b"a: " + b"9" * 5000 + b"\n", 0, "has a value that cannot be read"),
        (b'a: "\\U00110000"\n', 0, "is not readable YAML"),
        (b'a: "\\UFFFFFFFF"\n', 0, "is not readable YAML"),
        (b"#" * (MAX_DOCUMENT_BYTES + 1), 0, "is larger than 256 KiB"),
        (b"a: " + b"[" * 17 + b"]" * 17, 1, "is nested too deeply"),
        (b"[" * 100_000, 1, "is nested too deeply"),
        (b"{a: " * 50_000, 1, "is nested too deeply"),
        (b"- " * 100_000, 1, "is nested too deeply"),
        (b"? " * 100_000, 1, "is nested too deeply"),
    ],
)
def test_what_is_not_plain_yaml_is_refused(document: bytes, line: int, words: str) -> None:
    started = time.process_time()
    problem = only_problem(document)
    assert (problem.line, problem.field) == (line, "(document)")
    assert words in problem.message
    assert time.process_time() - started < 5


def test_sixteen_levels_are_deep_enough() -> None:
    assert PositionedYaml(b"a: " + b"[" * 15 + b"]" * 15).data["a"]


def test_every_key_that_is_there_twice_is_reported() -> None:
    with pytest.raises(DocumentError) as caught:
        PositionedYaml(b"a: 1\nb:\n  - {c: 1, c: 2}\na: 3\na: 4\n")
    found = [(problem.line, problem.field) for problem in caught.value.problems]
    assert found == [(3, "b[0].c"), (4, "a"), (5, "a")]
    assert all("twice" in problem.message for problem in caught.value.problems)
