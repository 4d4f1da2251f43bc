"""Names of parameters: short, what a person would say, unique, and the same whenever a space is read."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bloodauto.config.shipped import shipped_folder
from bloodauto.config.space import load_space
from bloodauto.config.space.names import PathPart, dotted_path, parameter_names

SHIPPED = sorted(shipped_folder("search_spaces").glob("*.yaml"))
STAGE = "stages:\n  - epochs: 1\n    optimizer: {learning_rate: {float: [1.0e-4, 1.0e-2]}}\n"


def names_of(path: Path) -> dict[str, str]:
    return {domain.path: domain.parameter for domain in load_space(path).domains()}


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_names_of_shipped_spaces_are_short_words_and_stay_the_same(path: Path) -> None:
    names = names_of(path)
    assert len(set(names.values())) == len(names)
    assert all(re.fullmatch(r"[a-z][a-z0-9_]*", name) for name in names.values())
    assert max(map(len, names.values())) <= 50
    assert names == names_of(path)


@pytest.mark.parametrize(
    ("space", "path", "name"),
    [
        ("small", "backbone.name", "backbone"),
        ("small", "augmentation.rand_augment.magnitude", "randaugment_magnitude"),
        ("small", "head.dropout", "dropout"),
        ("small", "stages[list of 2].1.optimizer[adamw].learning_rate", "learning_rate_adamw_stage_2"),
        ("small", "stages[list of 1].0.optimizer[adam].learning_rate", "learning_rate_adam"),
        ("small", "stages[list of 2].1.unfreeze.blocks", "unfreeze_blocks"),
        ("gpu", "stages.1.unfreeze", "unfreeze"),
        ("gpu", "stages.0.optimizer.learning_rate", "learning_rate_stage_1"),
        ("gpu", "loss[focal].class_weights", "class_weights_focal"),
        ("gpu", "stages.1.schedule.name", "schedule"),
    ],
)
def test_a_name_is_what_a_person_would_say(space: str, path: str, name: str) -> None:
    assert names_of(shipped_folder("search_spaces") / f"{space}.yaml")[path] == name


def test_one_learning_rate_is_called_learning_rate(tmp_path: Path) -> None:
    (tmp_path / "space.yaml").write_text(f"backbone: {{name: mobilenet_0.25}}\n{STAGE}")
    assert list(names_of(tmp_path / "space.yaml").values()) == ["learning_rate"]


FIELDS = st.sampled_from(["head", "stages", "steps", "0", "1", "rate", "name", "dropout", "rand_augment"])
LABELS = st.sampled_from([None, "adamw", "Adam-W", "adam_w", "{}", "x" * 40])
PATHS = st.lists(
    st.builds(PathPart, FIELDS, LABELS, st.integers(1, 3)) | st.builds(PathPart, FIELDS), min_size=1, max_size=5
).map(tuple)


@given(st.lists(PATHS, max_size=12))
def test_no_two_domains_have_one_name(paths: list[tuple[PathPart, ...]]) -> None:
    by_path = {dotted_path(parts): parts for parts in paths}
    names = parameter_names(by_path)
    assert names.keys() == by_path.keys()
    assert len(set(names.values())) == len(names)
    assert names == parameter_names(dict(reversed(by_path.items()))), "the order of the file does not matter"
