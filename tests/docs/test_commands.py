"""Every command in the README and the documents exists, with the options it is shown with."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer.main

from bloodauto.cli.main import app
from tests.locations import ROOT

DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
_COMMAND = re.compile(r"^ {4}(bloodauto .+?)(?: +#.*)?$|`(bloodauto [^`\n]+)`", re.MULTILINE)
#: Words that stand for something else in a sentence.
_PLACEHOLDERS = {"COMMAND", "FILE"}
_ROOT_COMMAND: Any = typer.main.get_command(app)


def _commands(path: Path) -> list[str]:
    text = path.read_text(encoding="utf-8")
    commands = [(match[1] or match[2]).strip() for match in _COMMAND.finditer(text)]
    return [
        command
        for command in commands
        if command.split()[1] in _ROOT_COMMAND.commands and not _PLACEHOLDERS & set(command.split())
    ]


#: Command lines with arguments; names of commands alone, in a sentence, are checked by their being found.
SHOWN = sorted({command for path in DOCUMENTS for command in _commands(path)})
COMPLETE = [
    command for command in SHOWN if len(command.split()) > 2 or command in ("bloodauto spaces", "bloodauto trials")
]


def test_the_documents_show_the_main_commands() -> None:
    names = {shlex.split(command)[1] for command in COMPLETE}
    assert names >= {"search", "train", "export-best", "predict", "report", "dashboard", "data", "ablate", "trials"}


@pytest.mark.parametrize(
    "command", [command for command in COMPLETE if command.split()[1:] not in (["data", "inspect"],)]
)
def test_a_command_that_is_shown_can_be_typed(command: str) -> None:
    arguments = shlex.split(command)[1:]
    node = _ROOT_COMMAND
    while hasattr(node, "commands") and arguments:
        assert arguments[0] in node.commands, f"{command}: no such command {arguments[0]!r}"
        node = node.commands[arguments.pop(0)]
    if arguments:
        # Parsing checks names, numbers and what is required; nothing is run.
        node.make_context("bloodauto", arguments, resilient_parsing=False)


def test_make_targets_of_the_documents_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = {
        target
        for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md")
        for target in re.findall(r"^ {4}make (\w+)", path.read_text(encoding="utf-8"), re.MULTILINE)
    }
    assert {"test", "demo", "docs"} <= targets
    assert [target for target in sorted(targets) if not re.search(rf"^{target}:", makefile, re.MULTILINE)] == []


def test_links_between_files_lead_somewhere() -> None:
    broken = [
        f"{path.relative_to(ROOT)}: {link}"
        for path in DOCUMENTS
        for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", path.read_text(encoding="utf-8"))
        if not (path.parent / link).exists()
    ]
    assert broken == []


def test_every_page_is_in_the_navigation() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    pages = [path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")]
    assert [page for page in pages if page not in navigation] == []


def test_modules_that_are_named_exist() -> None:
    """In experiments, too, so that a command can be repeated."""
    missing = {
        f"{path.relative_to(ROOT)}: {name}"
        for path in DOCUMENTS
        for name in re.findall(r"[\w./-]+/[\w-]+\.py\b", path.read_text(encoding="utf-8"))
        if not any((folder / name).exists() for folder in (ROOT, ROOT / "bloodauto"))
    }
    assert missing == set()
