"""The examples in the documents are recipes, spaces and Python that work."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from bloodauto.config.recipe import Recipe, parse_recipe
from bloodauto.config.recipe.augmentation import Augmentation
from bloodauto.config.space import load_space
from tests.locations import ROOT

DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def _blocks(language: str) -> list[tuple[str, str]]:
    return [
        (path.relative_to(ROOT).as_posix(), match[2])
        for path in DOCUMENTS
        for match in _BLOCK.finditer(path.read_text(encoding="utf-8"))
        if match[1] == language
    ]


@pytest.mark.parametrize(("document", "text"), _blocks("python"))
def test_python_parses(document: str, text: str) -> None:
    ast.parse(text, filename=document)


@pytest.mark.parametrize(("document", "text"), _blocks("yaml"))
def test_yaml_is_a_recipe_a_space_or_a_part_of_one(document: str, text: str, tmp_path: Path) -> None:
    value = YAML(typ="safe").load(text)
    if "{choice:" in text or "{int:" in text:
        (tmp_path / "space.yaml").write_text(text, encoding="utf-8")
        assert list(load_space(tmp_path / "space.yaml").domains())
    elif "backbone" in value:
        assert parse_recipe(value, origin=document).stages
    elif "augmentation" in value:
        assert Augmentation.model_validate(value["augmentation"]).steps
    else:
        assert set(value) <= {*Recipe.model_fields, "smoke", "in_domain"}, document


def test_the_examples_space_is_one_and_its_folder_is_described() -> None:
    folder = ROOT / "examples"
    assert list(load_space(folder / "custom_space.yaml").domains())
    described = (folder / "README.md").read_text(encoding="utf-8")
    assert [path.name for path in folder.iterdir() if path.is_file() and path.name not in described + "README.md"] == []
