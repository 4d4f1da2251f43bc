"""Variants of a recipe: from ``--vary``, and from files that declare them."""

from __future__ import annotations

from pathlib import Path

import pytest

from bloodauto.config.recipe import load_recipe
from bloodauto.config.recipe.experiments import load_ablation, load_ensemble_recipes
from bloodauto.config.shipped import find_recipe_file, shipped_folder
from bloodauto.errors import RecipeError
from bloodauto.models.backbones import check_recipe
from bloodauto.workflows.comparison.variants import (
    Variant,
    check_distinct,
    declared_variants,
    is_ablation,
    variants_from_options,
)

TRIALS = shipped_folder("trials")
ABLATIONS = sorted((TRIALS / "ablations").glob("*.yaml"))
BASE = """\
backbone: {name: own_cnn, weights: none}
head: {dropout: 0.3}
stages:
  - epochs: 2
    optimizer: {learning_rate: 1e-3}
"""


@pytest.fixture
def base(tmp_path: Path) -> Path:
    (tmp_path / "base.yaml").write_text(BASE)
    return tmp_path / "base.yaml"


def test_each_value_is_a_variant_beside_the_recipe_itself(base: Path) -> None:
    recipe = load_recipe(base)
    variants = variants_from_options(
        recipe, ["head.dropout=0, 0.3, 0.5", "head.dense_units=[],[16],[16, 8]", "stages.0.epochs=5"]
    )
    recipes = {variant.name: variant.recipe for variant in variants}
    # 0.3 and no dense layers are the recipe's own.
    names = ["base", "head.dropout=0", "head.dropout=0.5", "head.dense_units=[16]", "head.dense_units=[16, 8]"]
    assert list(recipes) == [*names, "stages.0.epochs=5"]
    assert recipes["base"] == recipe
    assert recipes["head.dropout=0.5"].head.dropout == 0.5
    assert recipes["head.dropout=0.5"].stages == recipe.stages
    assert recipes["head.dense_units=[16, 8]"].head.dense_units == (16, 8)
    assert recipes["stages.0.epochs=5"].total_epochs == 5


def test_a_group_of_fields_can_be_varied(base: Path) -> None:
    variants = variants_from_options(
        load_recipe(base), ["stages.0.unfreeze=none,{blocks: 2}", "loss={name: focal, gamma: 2}"]
    )
    assert [variant.recipe.stages[0].unfreeze for variant in variants[1:3]] != ["all", "all"]
    assert variants[3].recipe.loss.gamma == 2
    assert all("/" not in variant.name for variant in variants)


@pytest.mark.parametrize(
    ("vary", "message"),
    [
        ("head.dropout", "expected path=value,value"),
        ("=1", "expected path=value,value"),
        ("head.dropout=", "expected path=value,value"),
        ("head.dropout=0.1,2", "head.dropout: expected at most 0.9, got 2"),
        ("head.dropuot=0.1", "head.dropuot: no such field; did you mean 'dropout'?"),
        ("stages.1.epochs=2", "stages.1: expected the number of one of 1 items"),
        ("head.dropout=[", "expected values as in YAML"),
        ("head.dropout=0.3", "expected a value that the recipe does not have already"),
    ],
)
def test_a_wrong_vary_is_refused(base: Path, vary: str, message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        variants_from_options(load_recipe(base), [vary])
    assert message in str(caught.value)
    assert str(caught.value).startswith("--vary")


def ablation(folder: Path, variants: str, **more: str) -> Path:
    fields = "".join(f"{key}: {value}\n" for key, value in more.items())
    path = folder / "ablation.yaml"
    path.write_text(f"source: {{title: t}}\nbase: base.yaml\n{fields}variants:\n{variants}")
    return path


def test_overrides_accumulate_where_they_are_cumulative(base: Path) -> None:
    rows = "  - {name: a}\n  - {name: b, overrides: {head.dropout: 0.1}}\n  - {name: c, overrides: {batch_size: 8}}\n"
    apart, figure = declared_variants(ablation(base.parent, rows))
    assert [(variant.recipe.head.dropout, variant.recipe.batch_size) for variant in apart] == [
        (0.3, 64),
        (0.1, 64),
        (0.3, 8),
    ]
    added, _ = declared_variants(ablation(base.parent, rows, cumulative="true"))
    assert [(variant.recipe.head.dropout, variant.recipe.batch_size) for variant in added] == [
        (0.3, 64),
        (0.1, 64),
        (0.1, 8),
    ]
    assert figure == ""
    assert is_ablation(base.parent / "ablation.yaml")
    assert not is_ablation(base)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("  - {name: a}\n", "ablation.yaml:3: variants: expected at least 2"),
        (
            "  - {name: a}\n  - {name: a, overrides: {batch_size: 8}}\n",
            "expected different names, got a more than once",
        ),
        (
            "  - {name: a}\n  - name: b\n    overrides:\n      batch_size: 0\n",
            "ablation.yaml:7: batch_size: expected at least 1",
        ),
        (
            "  - {name: a}\n  - {name: b, published: 0.5}\n",
            "published_metric: expected the name of the published metric",
        ),
        ("  - {name: a}\n  - {name: ../b}\n", "variants.1.name"),
        ("  - {name: a}\n  - {nam: b}\n", "variants.1.nam: no such field; did you mean 'name'?"),
    ],
)
def test_a_fault_in_a_declared_ablation_is_reported(base: Path, rows: str, message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        declared_variants(ablation(base.parent, rows))
    assert message in str(caught.value)


def test_a_missing_base_is_reported(tmp_path: Path) -> None:
    path = ablation(tmp_path, "  - {name: a}\n  - {name: b, overrides: {batch_size: 8}}\n")
    with pytest.raises(RecipeError, match=r"ablation\.yaml:2: base: expected a recipe's file"):
        declared_variants(path)


def test_variants_that_train_the_same_are_refused(base: Path) -> None:
    recipe = load_recipe(base)
    with pytest.raises(RecipeError, match="b: expected something else than a"):
        check_distinct([Variant("a", recipe), Variant("b", recipe)])


@pytest.mark.parametrize("path", ABLATIONS, ids=lambda path: path.stem)
def test_every_shipped_ablation_makes_different_recipes_that_can_be_trained(path: Path) -> None:
    variants, figure = declared_variants(path)
    check_distinct(variants)
    for variant in variants:
        check_recipe(variant.recipe)
    assert bool(figure) == any(variant.published is not None for variant in variants)


def test_the_ladder_is_the_published_one() -> None:
    variants, figure = declared_variants(TRIALS / "ablations" / "ynwa_ladder.yaml")
    assert figure == "hidden_accuracy"
    assert [variant.published for variant in variants] == [0.63, 0.68, 0.74, 0.87, 0.89, 0.90]
    frozen, tuned, based, randomly, dropping, cutting = (variant.recipe for variant in variants)
    assert [stage.unfreeze for stage in frozen.stages] == ["none"]
    assert (frozen.augmentation.steps, tuned.augmentation.steps) == ((), ())
    assert [len(variant.augmentation.steps) for variant in (based, randomly, dropping, cutting)] == [7, 8, 8, 9]
    assert tuned.stages[1].unfreeze.blocks == 3  # type: ignore[union-attr]
    assert dropping.head.dropout < randomly.head.dropout
    # All steps are trained for as many epochs.
    assert len({variant.recipe.total_epochs for variant in variants}) == 1


def test_shipped_names_are_resolved_and_others_refused() -> None:
    assert find_recipe_file("ynwa") == TRIALS / "ynwa.yaml"
    assert find_recipe_file("ynwa_ladder") == TRIALS / "ablations" / "ynwa_ladder.yaml"
    assert find_recipe_file("no/such.yaml") == Path("no/such.yaml")
    with pytest.raises(RecipeError, match="did you mean 'hyperbee'"):
        find_recipe_file("hyperbe")


def test_the_declared_ensemble_names_its_members() -> None:
    ensemble = load_ensemble_recipes(TRIALS / "ensembles" / "overfitting_exorcists.yaml")
    assert [Path(member.recipe).stem for member in ensemble.members] == [
        "overfitting_exorcists_a",
        "overfitting_exorcists_b",
    ]
    assert ensemble.source.published["hidden_accuracy"] == 0.93


def test_a_missing_member_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "both.yaml"
    path.write_text("source: {title: t}\nmembers:\n  - {recipe: a.yaml}\n  - {recipe: b.yaml}\n")
    with pytest.raises(
        RecipeError, match=r"both\.yaml:3: members\.0\.recipe: expected a recipe's file, found none at a"
    ):
        load_ensemble_recipes(path)


def test_ablations_say_where_they_come_from() -> None:
    assert len(ABLATIONS) >= 15
    for path in ABLATIONS:
        assert "report" in load_ablation(path)[0].source.title
