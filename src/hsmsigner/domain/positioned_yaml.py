"""YAML with line numbers: the safe subset, every node knowing where it stands."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

MAX_DOCUMENT_BYTES = 2**18
_MAX_DEPTH = 16
_PLAIN_TAGS = frozenset(f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool", "null", "seq", "map"))

Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Problem:
    """One fault; `line` and `column` count from 1, 0 when the fault has no single place."""

    line: int
    column: int
    field: str
    message: str

    def __str__(self) -> str:
        place = f"line {self.line}, column {self.column}: " if self.line else ""
        return f"{place}{self.field}: {self.message}"


class DocumentError(Exception):
    """The document is refused; `problems` holds every fault found, in the order of the document."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = problems


class PositionedYaml:
    """A parsed document: its plain `data`, and where each of its fields stands."""

    def __init__(self, document: bytes) -> None:
        """Read one YAML document in UTF-8.

        Raises:
            DocumentError: too large, not UTF-8, not YAML, aliases, duplicate keys, tags beyond plain values.
        """
        self._root = _compose(document)
        self._children: dict[int, dict[str, yaml.Node]] = {}
        duplicates = list(_duplicate_keys(self._root, ()))
        if duplicates:
            raise DocumentError(duplicates)
        try:
            self.data: Any = yaml.SafeLoader("").construct_document(self._root)
        except (
            yaml.YAMLError,
            ValueError,
            LookupError,
            OverflowError,
        ) as error:  # PyYAML itself trips over `!!int ''`, `!!bool x`
            raise DocumentError([Problem(0, 0, "(document)", "has a value that cannot be read")]) from error

    def problem(self, path: Path, message: str) -> Problem:
        """Report a fault at a field; a missing field is reported where it should have been."""
        node = self._root
        for part in path:
            if isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
                node = node.value[part]
            elif isinstance(node, yaml.MappingNode):
                node = self._children_of(node).get(str(part), node)
        return _problem_at(node, path, message)

    def _children_of(self, node: yaml.MappingNode) -> dict[str, yaml.Node]:
        # Looked up once per fault: a search through the pairs would be quadratic in a document full of faults.
        if id(node) not in self._children:
            self._children[id(node)] = {key.value: child for key, child in node.value}
        return self._children[id(node)]


class _StrictLoader(yaml.SafeLoader):
    """Safe YAML without aliases, since one page of them can unfold to gigabytes, and without deep nesting."""

    _depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]  # PyYAML's stubs stop here
            raise yaml.MarkedYAMLError(None, None, "aliases are not allowed", mark)
        if self._depth > _MAX_DEPTH:
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]  # PyYAML's stubs stop here
            raise yaml.MarkedYAMLError(None, None, "is nested too deeply", mark)
        self._depth += 1
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node


def _compose(document: bytes) -> yaml.Node:
    if len(document) > MAX_DOCUMENT_BYTES:
        raise DocumentError([Problem(0, 0, "(document)", "is larger than 256 KiB")])
    try:
        root: yaml.Node | None = _StrictLoader(document.decode("utf-8")).get_single_node()
        if root is None:
            raise DocumentError([Problem(1, 1, "(document)", "is empty")])
        _check_shape(root)
    except UnicodeDecodeError as error:
        raise DocumentError([Problem(0, 0, "(document)", "is not UTF-8")]) from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = (mark.line + 1, mark.column + 1) if mark else (0, 0)
        raise DocumentError([Problem(*place, "(document)", str(error.problem))]) from error
    except (yaml.YAMLError, RecursionError, ValueError, OverflowError) as error:  # the last two: chr() of "\\U00110000"
        raise DocumentError([Problem(0, 0, "(document)", "is not readable YAML")]) from error
    return root


def _check_shape(node: yaml.Node) -> None:
    if node.tag not in _PLAIN_TAGS:
        raise yaml.MarkedYAMLError(None, None, "only plain text, numbers, lists and mappings", node.start_mark)
    if isinstance(node, yaml.SequenceNode):
        for child in node.value:
            _check_shape(child)
    elif isinstance(node, yaml.MappingNode):
        for key, child in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag != "tag:yaml.org,2002:str":
                raise yaml.MarkedYAMLError(None, None, "a key must be a plain word", key.start_mark)
            _check_shape(child)


def _duplicate_keys(node: yaml.Node, path: Path) -> Iterator[Problem]:
    if isinstance(node, yaml.SequenceNode):
        for index, child in enumerate(node.value):
            yield from _duplicate_keys(child, (*path, index))
    elif isinstance(node, yaml.MappingNode):
        seen = set()
        for key, child in node.value:
            if key.value in seen:
                yield _problem_at(key, (*path, key.value), "is there twice; the second would silently win")
            seen.add(key.value)
            yield from _duplicate_keys(child, (*path, key.value))


def _problem_at(node: yaml.Node, path: Path, message: str) -> Problem:
    field = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).lstrip(".")
    return Problem(node.start_mark.line + 1, node.start_mark.column + 1, field or "(document)", message)
