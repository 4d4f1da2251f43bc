"""Only ``bloodauto.run`` knows the names of a run's files and the keys of a study's user attributes."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel

from bloodauto.run import artifacts
from bloodauto.run.artifacts import Artifact, Record
from bloodauto.run.directory import ExportDirectory, RunDirectory
from bloodauto.run.study_attributes import StudyAttributes, TrialAttributes
from bloodauto.run.training_directory import TrainingDirectory

PACKAGE = Path(artifacts.__file__).resolve().parents[2]
#: Copied into an archive that must work without this project.
_STANDALONE = {"codabench_model.py"}
_ATTRIBUTE_METHODS = {"user_attrs", "set_user_attr"}


def _file_names() -> set[str]:
    paths: set[Path] = set()
    for kind in (RunDirectory, TrainingDirectory, ExportDirectory):
        directory = kind(Path("root"))
        for name, member in vars(kind).items():
            if isinstance(member, property):
                value = getattr(directory, name)
                if not isinstance(value, bool):
                    paths.add(
                        value if isinstance(value, Path) else getattr(value, "path", getattr(value, "root", None))
                    )
    return {path.name for path in paths if path.suffix}


FILE_NAMES = _file_names()


def _modules() -> list[Path]:
    return [
        path
        for path in sorted(PACKAGE.rglob("*.py"))
        if "_shipped" not in path.parts and path.relative_to(PACKAGE).parts[0] != "run" and path.name not in _STANDALONE
    ]


def _literals(tree: ast.AST) -> Iterator[ast.Constant]:
    """Text that the program uses, without docstrings and without pieces of messages."""
    documentation: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            documentation.add(id(node.value))
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documentation:
            yield node


def test_the_names_are_known():
    expected = {"ensemble.json", "history.json", "best.npz", "settings.yaml", "study.db", "labels.json", "ledger.jsonl"}
    assert expected <= FILE_NAMES


@pytest.mark.parametrize("path", _modules(), ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_no_module_outside_run_names_a_file_of_a_run(path: Path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    named = [f"line {node.lineno}: {node.value!r}" for node in _literals(tree) if node.value in FILE_NAMES]
    assert not named, f"{path}: use RunDirectory, TrainingDirectory or ExportDirectory for {named}"


@pytest.mark.parametrize("path", _modules(), ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_no_module_outside_run_reads_or_sets_user_attributes(path: Path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    used = [
        f"line {node.lineno}: {node.attr}"
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and node.attr in _ATTRIBUTE_METHODS
    ]
    assert not used, f"{path}: use TrialAttributes or StudyAttributes for {used}"


def _records(kind: type[BaseModel]) -> Iterator[type[BaseModel]]:
    for child in kind.__subclasses__():
        yield child
        yield from _records(child)


RECORDS = [
    record
    for record in dict.fromkeys(_records(Record))
    if record.__module__.startswith("bloodauto.run") and not record.__name__.startswith("_")
]


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.__name__)
def test_every_record_is_strict_and_frozen(record: type[BaseModel]):
    config = record.model_config
    assert config["frozen"]
    assert config["strict"]
    assert config["extra"] == "forbid"
    assert config["allow_inf_nan"] is False


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.__name__)
def test_every_field_is_described(record: type[BaseModel]):
    text = record.__doc__ if record.__doc__ is not None else ""
    if len(record.model_fields) < 2:
        assert text
        return
    undescribed = [
        name for name in record.model_fields if f"\n        {name}: " not in text and f"\n    {name}: " not in text
    ]
    assert not undescribed, f"{record.__name__}: no description of {undescribed} under Attributes"


def test_artifacts_have_different_file_names():
    names = [
        record.FILE for record in RECORDS if issubclass(record, Artifact) and "FILE" in vars(record)
    ]  # fmt: skip
    assert len(set(names)) == len(names)


def test_attributes_have_different_keys():
    assert not set(TrialAttributes.model_fields) & set(StudyAttributes.model_fields)
