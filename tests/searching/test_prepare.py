from __future__ import annotations

from bloodauto.files import shipped_folder
from bloodauto.searching.prepare import declared_recipes
from bloodauto.space import load_space


def test_declared_recipes_of_the_small_space_start_with_the_smallest_network() -> None:
    declared = declared_recipes("shipped", load_space(shipped_folder("search_spaces") / "small.yaml"))
    names = [name for name, _ in declared.inside]
    assert names == [
        "small_mobilenet_025",
        "small_mobilenet_v2_035",
        "small_mobilenet_v2_100",
        "small_mobilenet_100",
    ]
    assert "ynwa" in {name for name, _ in declared.outside}
