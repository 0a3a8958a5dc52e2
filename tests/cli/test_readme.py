"""What the README promises of the command line is what the program does."""

from __future__ import annotations

import re
from pathlib import Path

import typer

from hsmsigner.cli.main import build_app
from hsmsigner.cli.output import EXIT_CODE_MEANINGS

README = (Path(__file__).parents[2] / "README.md").read_text("utf-8")


def test_readme_has_the_exit_codes_of_the_program() -> None:
    listed = dict(re.findall(r"^\| (\d) \| (.+?) \|$", README, re.MULTILINE))

    assert {int(code): text.replace("`", "") for code, text in listed.items()} == EXIT_CODE_MEANINGS


def test_readme_lists_every_command() -> None:
    group = typer.main.get_command(build_app())
    listed: dict[str, set[str]] = {}
    for words in re.findall(r"^\| `(.+?)` \|", README, re.MULTILINE):
        name, _, rest = words.partition(" ")
        listed[name] = set(rest.split("\\|"))

    assert set(listed) == set(group.commands)  # type: ignore[attr-defined] # a group, as built
    for name in ("keys", "policy", "audit"):
        assert listed[name] == set(group.commands[name].commands)  # type: ignore[attr-defined] # a group of groups


def test_readme_names_only_targets_that_make_has() -> None:
    makefile = (Path(__file__).parents[2] / "Makefile").read_text("utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))

    named = set(re.findall(r"^make ([a-z-]+)  ", README, re.MULTILINE))
    assert {"demo", "test"} <= named <= targets
