from __future__ import annotations

from bloodauto.config.objectives import parse_objectives
from bloodauto.config.recipe import Recipe
from bloodauto.config.shipped import shipped_folder
from bloodauto.config.space import load_space
from bloodauto.workflows.planning import load_initial_configurations

SMALL = load_space(shipped_folder("search_spaces") / "small.yaml")


def initial_by(objective: str) -> dict[str, Recipe]:
    return dict(load_initial_configurations("shipped", SMALL, parse_objectives(objective)).in_space)


def test_initial_configurations_of_the_small_space_start_with_the_smallest_network() -> None:
    initial = load_initial_configurations("shipped", SMALL, parse_objectives("shift"))
    names = [name for name, _ in initial.in_space]
    assert names == [
        "small_mobilenet_025",
        "small_mobilenet_v2_035",
        "small_mobilenet_v2_100",
        "small_mobilenet_100",
    ]
    assert "ynwa" in {name for name, _ in initial.not_in_space}


def test_a_clean_image_search_starts_from_the_clean_image_variants() -> None:
    by_shift, by_accuracy = initial_by("shift,latency"), initial_by("accuracy")
    assert list(by_accuracy) == [f"{name} (in-domain)" for name in by_shift]
    assert by_accuracy == initial_by("macro_f1,parameters")
    for light, much in zip(by_accuracy.values(), by_shift.values(), strict=True):
        assert much.augmentation.rand_augment is not None
        assert light.augmentation.rand_augment is not None
        assert light.augmentation.rand_augment.magnitude < much.augmentation.rand_augment.magnitude / 2
        assert (light.backbone, light.stages) == (much.backbone, much.stages)
