"""What docs/augmentation.md says of the operations is what the code does."""

from __future__ import annotations

from ruamel.yaml import YAML

from bloodauto.config.recipe import OPERATION_SPANS, Augmentation
from bloodauto.transforms import OPERATIONS
from bloodauto.transforms.operations import StrengthSampling
from tests.locations import ROOT

PAGE = ROOT / "docs" / "augmentation.md"


def test_the_page_lists_every_operation_with_its_range():
    rows = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    for operation in OPERATIONS.values():
        limit = (
            "-" if operation.strength_sampling is StrengthSampling.ALWAYS else f"{operation.limit:g} {operation.unit}"
        )
        cells = (
            operation.name,
            operation.kind.value,
            operation.strength_sampling.value,
            limit,
            operation.description,
            operation.source,
        )
        assert f"| {' | '.join(cells)} |" in rows


def test_the_page_lists_the_ranges_a_recipe_can_give():
    by_span: dict = {}
    for name, span in OPERATION_SPANS.items():
        if span is not None:
            by_span.setdefault(span, []).append(name)
    text = PAGE.read_text(encoding="utf-8")
    for span, names in by_span.items():
        assert f"| `range_{span.unit}` | {span.lowest:g} to {span.highest:g} | {', '.join(names)} |" in text


def test_the_pages_recipe_is_one():
    text = PAGE.read_text(encoding="utf-8").partition("## In a recipe")[2]
    value = YAML(typ="safe").load(text.partition("```yaml")[2].partition("```")[0])
    augmentation = Augmentation.model_validate(value["augmentation"])
    assert len(augmentation.steps) == 4
    # It shows every field there is.
    assert set(value["augmentation"]) == set(Augmentation.model_fields)
