"""A search of two objectives, with two workers on half a core each, on cells of two sites and images of a third.

Fractions of a GPU are reserved and charged by the same code; no GPU is needed here.
"""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bloodauto.data.synthetic.generator import synthesize
from bloodauto.data.write import write_dataset
from bloodauto.run.directory import RunDirectory
from tests.command_line import Completed, bloodauto, bloodauto_here, charges
from tests.search_fixtures import Inputs

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@dataclass(frozen=True)
class SitesSearch:
    """A finished search.

    Attributes:
        run: Its directory.
        command: How the command ended.
        target: The unlabelled images of the third site.
        budget_device_seconds: What it was given.
    """

    run: RunDirectory
    command: Completed
    target: Path
    budget_device_seconds: float

    @property
    def summary(self) -> dict[str, Any]:
        summary: dict[str, Any] = json.loads(self.command.out.splitlines()[-1])
        return summary


@pytest.fixture(scope="module")
def sites_search(inputs: Inputs, slowness: float, tmp_path_factory: pytest.TempPathFactory) -> SitesSearch:
    folder, budget = tmp_path_factory.mktemp("sites"), round(80 * slowness)
    _write_two_sites(folder / "cells.npz")
    np.save(folder / "target.npy", synthesize(120, site="lab_b", seed=4, image_size_px=32).images)
    command = bloodauto(
        "search", "--run", folder / "run", "--data", folder / "cells.npz", "--space", inputs.short_space,
        "--target-images", folder / "target.npy", "--objective", "shift,latency", "--budget", f"{budget}cpu-s",
        "--workers", 2, "--cpus-per-trial", 0.5, "--refit-fraction", 0.3, "--json",
        timeout_seconds=120 + 2 * budget,
    )  # fmt: skip
    assert command.code == 0, (command.out[-3000:], command.err[-3000:])
    return SitesSearch(RunDirectory(folder / "run"), command, folder / "target.npy", budget)


def _write_two_sites(path: Path) -> None:
    near, far = (synthesize(200, site=site, seed=3, image_size_px=32) for site in ("lab_a", "lab_c"))
    both = replace(
        near,
        images=np.concatenate([near.images, far.images]),
        labels=np.concatenate([near.labels, far.labels]),
        names=np.array([f"{number:04d}" for number in range(400)]),
        sites=np.array(["near"] * 200 + ["far"] * 200),
        groups=np.full(400, ""),
        predefined_splits=np.full(400, ""),
    )
    write_dataset(both, path)


def test_two_workers_on_one_core_are_charged_half_of_it_each(sites_search: SitesSearch) -> None:
    summary, lines = sites_search.summary, charges(sites_search.run)
    assert summary["budget_device_seconds"] == sites_search.budget_device_seconds
    assert summary["spent_device_seconds"] <= sites_search.budget_device_seconds
    assert summary["trials"]["complete"] > 0
    wall_seconds = lines[-1].at_unix - lines[0].at_unix
    # Two halves while both train; half a core at the end.
    assert 0.5 * wall_seconds <= summary["spent_device_seconds"] <= 1.1 * wall_seconds + 10


def test_the_ensemble_is_made_of_the_pareto_front(sites_search: SitesSearch) -> None:
    summary = sites_search.summary
    assert summary["front"]
    assert all(set(row["values"]) == {"shift", "latency"} for row in summary["front"])
    assert all(row["values"]["latency"] > 0 for row in summary["front"])
    assert summary["spent_device_seconds"] <= summary["budget_device_seconds"]
    # Its other members are refits of these trials.
    on_pareto_front = {row["trial"] for row in summary["front"]}
    members = sites_search.run.ensemble.read().members
    assert {member.trial for member in members if member.kind == "trial"} <= on_pareto_front


def test_sites_are_folds_and_each_has_its_score(sites_search: SitesSearch) -> None:
    parts = {part.name for part in sites_search.run.splits.read().parts}
    assert {"near", "far"} <= parts
    scores = {score.site: score for score in sites_search.run.site_scores.read().sites}
    assert scores
    assert set(scores) <= {"near", "far"}
    assert all(score.images > 100 and 0 <= score.accuracy <= 1 for score in scores.values())


def test_every_training_predicts_the_target_images(sites_search: SitesSearch) -> None:
    estimate = sites_search.run.target_estimate.read()
    assert estimate.images == 120
    assert 0 < estimate.accuracy < 1
    results = [training.result.read() for training in sites_search.run.trials() if training.result.exists]
    assert results
    for result in results:
        both = (result.shift + result.target_estimate) / 2
        assert result.objective == pytest.approx(both)


def test_an_export_for_the_target_predicts_otherwise_and_does_not_change_the_run(
    sites_search: SitesSearch, tmp_path: Path
) -> None:
    before = sites_search.run.held_out_test.path.read_text(encoding="utf-8")
    done = bloodauto_here(
        "export-best", "--run", sites_search.run.root, "--output", tmp_path / "adapted", "--format", "keras",
        "--target-images", sites_search.target,
    )  # fmt: skip
    assert done.code == 0, done.err[-3000:]
    probabilities = {}
    for name, model in (("own", sites_search.run.export.root), ("adapted", tmp_path / "adapted")):
        table = tmp_path / f"{name}.csv"
        assert bloodauto_here("predict", model / "model.keras", sites_search.target, "--output", table).code == 0
        with table.open(encoding="utf-8", newline="") as stream:
            rows = sorted(csv.DictReader(stream), key=lambda row: row["name"])
        columns = [column for column in rows[0] if column.startswith("probability_")]
        assert len(columns) == 8
        probabilities[name] = np.array([[float(row[column]) for column in columns] for row in rows])
    assert len(probabilities["own"]) == len(probabilities["adapted"]) == 120
    assert np.abs(probabilities["own"] - probabilities["adapted"]).max() > 0.01
    np.testing.assert_allclose(probabilities["adapted"].sum(axis=1), 1.0, atol=1e-3)
    assert sites_search.run.held_out_test.path.read_text(encoding="utf-8") == before


def test_the_report_shows_pareto_front_sites_and_target(sites_search: SitesSearch, tmp_path: Path) -> None:
    assert bloodauto_here("report", "--run", sites_search.run.root, "--output", tmp_path / "report.html").code == 0
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    for heading in ("Pareto front", "At sites left out of training", "In the target domain"):
        assert heading in page
