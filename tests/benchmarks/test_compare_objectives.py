"""The comparison of objectives, on tables in which the right answer is planted."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from bloodauto.shift.corruptions.registry import GROUPS
from tests.locations import ROOT

FOLDER = ROOT / "benchmarks"
FAMILIES = [
    {"name": name, "group": group}
    for name, group in [
        ("defocus", "optics"),
        ("motion", "optics"),
        ("gaussian_noise", "sensor"),
        ("jpeg", "sensor"),
        ("vignette", "light"),
        ("crease", "artefacts"),
        ("combined_shift", "combined"),
    ]
]


@pytest.fixture(scope="module")
def compare() -> ModuleType:
    sys.path.insert(0, str(FOLDER))
    try:
        return importlib.import_module("compare_objectives")
    finally:
        sys.path.remove(str(FOLDER))


def recipe(operations: list[str]) -> dict:
    rand_augment = {"num_ops": 2, "magnitude": 1.0, "operations": operations}
    return {
        "backbone": {"name": "mobilenet_0.25", "weights": "none"},
        "augmentation": {"orientation": False, **({"rand_augment": rand_augment} if operations else {})},
        "stages": [{"epochs": 1, "optimizer": {"name": "adam", "learning_rate": 0.001}}],
    }


def planted(path: Path, *, overlap: float) -> Path:
    """30 recipes with an ability each; a third trains on optics and sensor, which lifts only their scores there."""
    rng = np.random.default_rng(0)
    severities = [1, 2, 3, 4, 5]
    recipes = []
    for number in range(30):
        ability = rng.uniform(-1, 2)
        trains_on_them = number % 3 == 0
        lift = np.array([overlap * trains_on_them * (family["group"] in ("optics", "sensor")) for family in FAMILIES])
        odds = ability + lift[:, None] - 0.4 * np.array(severities)[None] + rng.normal(0, 0.1, (len(FAMILIES), 5))
        clean = float(np.random.default_rng([1, number]).uniform(0.96, 0.99))
        recipes.append(
            {
                "name": f"recipe {number}",
                "recipe": recipe(["defocus_blur", "motion_blur", "noise", "jpeg"] if trains_on_them else []),
                "core_seconds": 1.0,
                "clean": {"accuracy": clean, "balanced_accuracy": clean},
                "balanced": (1 / (1 + np.exp(-odds))).tolist(),
                "harsher": (1 / (1 + np.exp(2 - ability + rng.normal(0, 0.1, 5)))).tolist(),
                "site_accuracy": (1 / (1 + np.exp(1 - ability + rng.normal(0, 1.0, 48)))).tolist(),
                "external": {"synthetic_lab_b": float(1 / (1 + np.exp(1 - ability)))},
            }
        )
    path.write_text(json.dumps({"families": FAMILIES, "severities": severities, "recipes": recipes}))
    return path


def test_what_follows_the_planted_ability_ranks_and_clean_accuracy_does_not(
    compare: ModuleType, tmp_path: Path
) -> None:
    lines = compare.compare(compare.read_table(planted(tmp_path / "table.json", overlap=0.0)))
    by_name = {line.name: line for line in lines}
    best, control = by_name["mean of groups and clean"], by_name["clean accuracy (control)"]
    assert best.held_out > 0.95
    assert best.held_out_half[0] > 0.95 > control.held_out_half[2]
    assert by_name["half harsher, 4.1 to 5"].external["synthetic_lab_b"][0] > 0.95
    assert by_name["half sites"].external["synthetic_lab_b"][0] > 0.95
    assert best.external["synthetic_lab_b"][0] > 0.95
    assert abs(control.held_out) < 0.35
    totals = [line.held_out_half[0] + line.mean_over_synthetic_sites for line in lines]
    assert totals == sorted(totals, reverse=True)
    assert best.held_out > control.held_out
    for line in lines:
        assert line.held_out_interval[0] <= line.held_out_interval[1]
        assert line.held_out_half[1] <= line.held_out_half[2]
        assert line.external["synthetic_lab_b"][1] <= line.external["synthetic_lab_b"][2]
    assert best.external["synthetic_lab_b"][1] > control.external["synthetic_lab_b"][2]


def test_covered_families_inflate_scores_and_the_discount_corrects_it(compare: ModuleType, tmp_path: Path) -> None:
    lines = {
        line.name: line for line in compare.compare(compare.read_table(planted(tmp_path / "table.json", overlap=3.0)))
    }
    naive = lines["mean of groups and clean"].external["synthetic_lab_b"][0]
    discounted = [
        lines[f"mean of groups and clean, covered images weigh {w}"].external["synthetic_lab_b"][0]
        for w in ("0.5", "0.25", "0")
    ]
    assert naive < discounted[0] < discounted[1] < discounted[2]
    assert discounted[2] > 0.9


def test_without_the_combined_group_harsher_shifts_are_hidden_too(compare: ModuleType, tmp_path: Path) -> None:
    table = compare.read_table(planted(tmp_path / "table.json", overlap=0.0))
    without = np.array([family["group"] != "combined" for family in FAMILIES])
    assert table.scores(without).harsher is None
    assert table.scores(without).site_accuracy is None
    assert table.scores(np.ones(len(FAMILIES), bool)).harsher is not None


def test_the_correlation_is_spearman_with_shared_ranks(compare: ModuleType) -> None:
    from scipy.stats import spearmanr

    rng = np.random.default_rng(1)
    first, second = rng.integers(0, 5, 12), rng.normal(size=12)
    rows = np.stack([np.arange(12), rng.integers(12, size=12)])
    correlations = compare._correlations(first, second, rows)
    for value, row in zip(correlations, rows, strict=True):
        assert value == pytest.approx(spearmanr(first[row], second[row]).statistic)
    assert compare._correlations(np.ones(12), second, rows)[0] == 0


def test_the_markdown_has_one_row_for_each_candidate(compare: ModuleType, tmp_path: Path) -> None:
    lines = compare.compare(compare.read_table(planted(tmp_path / "table.json", overlap=0.0)))
    rows = compare.as_markdown(lines).splitlines()
    assert rows[0] == "| objective | held-out groups | held-out half | mean of synthetic sites | synthetic lab b |"
    assert len(rows) == 2 + len(lines)
    assert len({line.name for line in lines}) == len(lines)


def test_selecting_by_the_objective_gains_the_planted_ability(compare: ModuleType, tmp_path: Path) -> None:
    table = compare.read_table(planted(tmp_path / "table.json", overlap=0.0))
    few, many = compare.objective_gain(table, 2), compare.objective_gain(table, 16)
    mean = float(table.external["synthetic_lab_b"].mean())
    for gain in (few, many):
        assert gain.by_accuracy["synthetic_lab_b"] == pytest.approx(mean, abs=0.12), "clean accuracy tells nothing here"
        assert gain.by_objective["synthetic_lab_b"] > gain.by_accuracy["synthetic_lab_b"] + 0.05
        assert gain.by_objective["held-out groups"] > gain.by_accuracy["held-out groups"]
        assert gain.by_objective["clean"] <= gain.by_accuracy["clean"]
    assert many.by_objective["synthetic_lab_b"] > few.by_objective["synthetic_lab_b"]
    assert len(compare.gains_as_markdown([few, many]).splitlines()) == 6


def test_the_recorded_table_has_the_groups_of_the_suite(compare: ModuleType) -> None:
    table = compare.read_table(FOLDER / "objective_recipes.json")
    assert set(table.groups.tolist()) == set(GROUPS)
    assert len(table.names) == 59
