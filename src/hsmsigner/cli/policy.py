"""`hsmsigner policy`: who may do what, and how often."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hsmsigner.cli.options import JsonOption, OutOption, ProfileOption, read_input, write_output
from hsmsigner.cli.output import ExitCode, print_fields, print_json, print_line
from hsmsigner.cli.shown import time_text
from hsmsigner.client import SignerClient

DocumentArgument = Annotated[Path, typer.Argument(help="The policy document; - is standard input.", metavar="FILE")]


def build_app() -> typer.Typer:
    """Put the group together."""
    app = typer.Typer(no_args_is_help=True, help="The policy: look at it, check a document, publish one.")
    app.command()(show)
    app.command()(validate)
    app.command()(publish)
    return app


def show(profile: ProfileOption, out: OutOption = None, *, as_json: JsonOption = False) -> None:
    """Print the document in force, its revision first; --out writes the document alone, byte for byte.

    Example: hsmsigner policy show --out policy.yaml
    """
    with SignerClient.from_profile(profile) as client:
        policy = client.get_policy()
    fields = {
        "revision": str(policy.revision),
        "sha256": policy.sha256,
        "published": time_text(policy.publish_time),
        "publisher": policy.publisher,
    }
    if out is not None:
        write_output(out, policy.document.encode())
    if as_json:
        print_json({**fields, "revision": policy.revision, "document": policy.document})
        return
    print_fields(fields)
    if out is None:
        print_line("\n" + policy.document.rstrip("\n"))
    else:
        print_line(f"wrote the document to {out}")


def validate(file: DocumentArgument, profile: ProfileOption, *, as_json: JsonOption = False) -> None:
    """Check a document against this server, and change nothing. Exit code 1 when it could not be published.

    Example: hsmsigner policy validate policy.yaml
    """
    with SignerClient.from_profile(profile) as client:
        answer = client.validate_policy(_document(file))
    if as_json:
        print_json(
            {
                "sha256": answer.sha256,
                "problems": [
                    {
                        "line": problem.line,
                        "column": problem.column,
                        "field": problem.field,
                        "message": problem.message,
                    }
                    for problem in answer.problems
                ],
            }
        )
    else:
        for problem in answer.problems:
            place = f"{file}:{problem.line}:{problem.column}" if problem.line else str(file)
            print_line(f"{place}: {problem.field}: {problem.message}")
        if not answer.problems:
            print_line(f"{file} could be published (SHA-256 {answer.sha256})")
    if answer.problems:
        raise typer.Exit(ExitCode.REFUSED)


def publish(
    file: DocumentArgument,
    profile: ProfileOption,
    comment: Annotated[str, typer.Option(help="Why; goes into the log.", metavar="TEXT")],
    expected_revision: Annotated[
        int, typer.Option(help="Only if this revision is in force; 0 does not ask.", min=0, metavar="N")
    ] = 0,
    *,
    allow_lockout: Annotated[
        bool, typer.Option("--allow-lockout", help="Also if you could then not publish again.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Put a document in force, whole or not at all.

    Example: hsmsigner policy publish policy.yaml --comment "engine 3 joins" --expected-revision 4
    """
    if not comment.strip():
        raise typer.BadParameter("say why, for those who read the log later", param_hint="--comment")
    document = _document(file)
    with SignerClient.from_profile(profile) as client:
        policy = client.publish_policy(
            document, comment=comment, expected_revision=expected_revision, allow_lockout=allow_lockout
        )
    if as_json:
        print_json(
            {
                "revision": policy.revision,
                "sha256": policy.sha256,
                "published": time_text(policy.publish_time),
                "publisher": policy.publisher,
            }
        )
    else:
        print_line(f"revision {policy.revision} is in force (SHA-256 {policy.sha256})")


def _document(file: Path) -> str:
    try:
        return read_input(file).decode("utf-8")
    except UnicodeDecodeError as error:
        raise typer.BadParameter(f"{file} is not UTF-8 text: byte {error.start} cannot be read") from error
