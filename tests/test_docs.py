"""Every command in the README and the documents exists, with the options it is shown with."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer

from bloodauto.cli.main import app

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
_COMMAND = re.compile(r"(?:^ {4}|^|`)(bloodauto(?: [^`#\n]+)?)", re.MULTILINE)


def _commands(path: Path) -> list[str]:
    text = path.read_text(encoding="utf-8")
    found = [match.group(1).strip() for match in _COMMAND.finditer(text)]
    # Prose may begin a line with the project's name; a command goes on with one of its subcommands.
    names = set(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
    return [one for one in found if len(one.split()) > 1 and one.split()[1] in names]


ALL = [pytest.param(command, id=f"{path.name}: {command}") for path in DOCUMENTS for command in _commands(path)]


def test_the_documents_show_the_main_commands() -> None:
    shown = {shlex.split(parameter.values[0])[1] for parameter in ALL}  # type: ignore[arg-type]
    assert {"search", "train", "export-best", "predict", "report", "dashboard", "data", "spaces", "trials"} <= shown


@pytest.mark.parametrize("command", ALL)
def test_a_command_that_is_shown_can_be_typed(command: str) -> None:
    words = shlex.split(command)[1:]
    node = typer.main.get_command(app)
    while hasattr(node, "commands") and words:
        assert words[0] in node.commands, f"{command}: no such command {words[0]!r}"
        node = node.commands[words.pop(0)]
    # Parsing checks names, numbers and what is required; nothing is run.
    node.make_context("bloodauto", words, resilient_parsing=False)


def test_make_targets_of_the_readme_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"^ {4}make (\w+)", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), f"make {target}: no such target"


def test_links_of_the_documents_lead_somewhere() -> None:
    for path in DOCUMENTS:
        for link in re.findall(r"\]\(([^)#:]+)\)", path.read_text(encoding="utf-8")):
            assert (path.parent / link).exists(), f"{path.name}: {link}"
