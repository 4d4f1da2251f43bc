"""The generated pages of the reference are current."""

from __future__ import annotations

import importlib.util
from types import ModuleType

import pytest

from tests.locations import ROOT

REFERENCE = ROOT / "docs" / "reference"


def _load_generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


GENERATOR = _load_generator()


@pytest.mark.parametrize("name", sorted(GENERATOR.PAGES))
def test_a_page_is_what_the_code_says(name: str) -> None:
    assert (REFERENCE / name).read_text(encoding="utf-8") == GENERATOR.page(name), (
        "run `make docs` and commit the pages"
    )


def test_only_the_glossary_is_written_by_hand() -> None:
    assert {path.name for path in REFERENCE.glob("*.md")} == {
        *(name for name in GENERATOR.PAGES if name.endswith(".md")),
        "glossary.md",
    }
