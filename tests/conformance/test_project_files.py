"""The files around the package agree with each other."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from ruamel.yaml import YAML

ROOT = Path(__file__).resolve().parents[2]
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]


def _read(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def test_the_citation_names_the_version() -> None:
    citation = YAML(typ="safe").load(_read("CITATION.cff"))
    assert (citation["cff-version"], citation["version"]) == ("1.2.0", VERSION)


def test_pre_commit_runs_the_pinned_ruff() -> None:
    hooks = {entry["repo"]: entry for entry in YAML(typ="safe").load(_read(".pre-commit-config.yaml"))["repos"]}
    pinned = re.search(r"^ruff==(\S+)$", _read("constraints.txt"), re.MULTILINE)
    assert pinned is not None
    assert hooks["https://github.com/astral-sh/ruff-pre-commit"]["rev"] == f"v{pinned[1]}"


def test_the_workflow_calls_the_one_script() -> None:
    jobs = YAML(typ="safe").load(_read(".github/workflows/ci.yml"))["jobs"]
    commands = [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]
    assert commands[-1] == ".ci/run"


def test_the_changelog_has_a_section_for_what_is_not_released() -> None:
    headings = re.findall(r"^## \[?([^\]\s]+)", _read("CHANGELOG.md"), re.MULTILINE)
    assert headings[0] == "Unreleased"
    assert len(headings) == len(set(headings))
