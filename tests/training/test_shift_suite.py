"""What the recipes of a search may train on counts less for all of them."""

from __future__ import annotations

import numpy as np

from bloodauto.config.shipped import shipped_folder
from bloodauto.config.space import covering_recipes, load_space
from bloodauto.training.augmentation import shift_suite_for

LABELS = np.repeat(np.arange(4), 30)


def reached(recipes, seed: int = 0) -> dict[str, float]:
    return {coverage.family: coverage.severity for coverage in shift_suite_for(recipes, seed=seed).covered_by_training}


def test_a_shipped_space_covers_what_its_operations_do_and_nothing_else() -> None:
    covered_by_training = reached(covering_recipes(load_space(shipped_folder("search_spaces") / "small.yaml")))
    assert {"defocus", "gamma", "stain_hue", "scale"} <= set(covered_by_training)
    assert {"vignette", "pixelation", "stain_deposit", "bubble", "crease"}.isdisjoint(covered_by_training)


def test_all_recipes_of_a_search_are_evaluated_with_the_same_weights(recipe_of) -> None:
    plain, jpeg = recipe_of(), recipe_of(augmentation={"steps": [{"operation": "jpeg", "magnitude": 1.0}]})
    together = shift_suite_for([plain, jpeg], seed=0).plan(LABELS)
    assert reached([plain]) == {}
    assert set(reached([plain, jpeg])) == {"jpeg"}
    covered = (together.family_names == "jpeg") & (together.severities <= 4)
    others = ~covered & (together.group_names != "combined")
    assert set(together.weights[others]) == {1.0}
    assert covered.any()
    assert together.weights[covered].max() < 1.0
    np.testing.assert_array_equal(together.image_index, shift_suite_for([plain], seed=0).plan(LABELS).image_index)


def test_images_made_ahead_and_images_that_fill_up_classes_count_as_training(recipe_of) -> None:
    step = {"operation": "hue", "magnitude": 0.9}
    ahead = recipe_of(augmentation={"offline": {"fraction": 0.5, "steps": [step]}})
    filled = recipe_of(imbalance={"sampling": "synthesise", "synthesise": {"steps": [step]}})
    assert set(reached([ahead])) == set(reached([filled])) == {"stain_hue"}
