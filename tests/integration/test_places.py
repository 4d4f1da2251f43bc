"""A search of two objectives on cells of two named laboratories, for a third of which there are unlabelled images."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from bloodauto.data.synthetic.generator import synthesize
from bloodauto.data.write import write_dataset
from bloodauto.run.directory import RunDirectory
from bloodauto.run.files import read_json

from .conftest import Material
from .runs import Answer, bloodauto

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@dataclass(frozen=True)
class Placed:
    run: RunDirectory
    answer: Answer
    target: Path


@pytest.fixture(scope="module")
def placed(material: Material, tmp_path_factory: pytest.TempPathFactory) -> Placed:
    folder = tmp_path_factory.mktemp("placed")
    near, far = (synthesize(200, site=site, seed=3, image_size_px=48) for site in ("lab_a", "lab_c"))
    both = replace(
        near,
        images=np.concatenate([near.images, far.images]),
        labels=np.concatenate([near.labels, far.labels]),
        names=np.array([f"{number:04d}" for number in range(400)]),
        sites=np.array(["near"] * 200 + ["far"] * 200),
        groups=np.full(400, ""),
        predefined_splits=np.full(400, ""),
    )
    write_dataset(both, folder / "cells.npz")
    meant = synthesize(120, site="lab_b", seed=4, image_size_px=48)
    np.save(folder / "target.npy", meant.images)
    answer = bloodauto(
        "search", "--run", folder / "run", "--data", folder / "cells.npz", "--space", material.short,
        "--target-images", folder / "target.npy", "--objective", "shift,latency", "--budget", "180cpu-s",
        "--workers", 2, "--refit-fraction", 0.3, "--json",
    )  # fmt: skip
    assert answer.code == 0, answer.err[-3000:]
    return Placed(RunDirectory(folder / "run"), answer, folder / "target.npy")


def test_the_front_is_told_and_its_best_leads(placed: Placed) -> None:
    summary = json.loads(placed.answer.out.splitlines()[-1])
    assert summary["front"]
    assert all(set(row["values"]) == {"shift", "latency"} for row in summary["front"])
    assert all(row["values"]["latency"] > 0 for row in summary["front"])
    assert summary["spent_device_seconds"] <= summary["budget_device_seconds"]
    # The ensemble is made of the front's trials and of refits of them.
    of_front = {row["trial"] for row in summary["front"]}
    members = read_json(placed.run.ensemble.path)["members"]
    assert {member["trial"] for member in members if member["kind"] == "trial"} <= of_front


def test_laboratories_are_folds_and_each_has_its_score(placed: Placed) -> None:
    parts = {part["name"] for part in read_json(placed.run.splits.path)["parts"]}
    assert {"near", "far"} <= parts
    scores = {row["site"]: row for row in read_json(placed.run.root / "site_scores.json")}
    assert scores
    assert set(scores) <= {"near", "far"}
    assert all(row["images"] > 100 and 0 <= row["accuracy"] <= 1 for row in scores.values())


def test_target_images_are_answered_for_by_every_training(placed: Placed) -> None:
    estimate = read_json(placed.run.root / "target.json")
    assert estimate["images"] == 120
    assert 0 < estimate["accuracy"] < 1
    results = [read_json(path) for path in sorted((placed.run.root / "trials").glob("*/result.json"))]
    assert results
    for result in results:
        both = (result["metrics"]["shift"] + result["target_estimate"]) / 2
        assert result["objective"] == pytest.approx(both)


def test_an_export_for_the_target_answers_otherwise_and_leaves_the_run_alone(placed: Placed, tmp_path: Path) -> None:
    before = placed.run.held_out_test.path.read_text(encoding="utf-8")
    done = bloodauto(
        "export-best", "--run", placed.run.root, "--output", tmp_path / "adapted", "--format", "keras",
        "--target-images", placed.target,
    )  # fmt: skip
    assert done.code == 0, done.err[-3000:]
    answers = {}
    for name, model in (("own", placed.run.export.root), ("adapted", tmp_path / "adapted")):
        table = tmp_path / f"{name}.csv"
        assert bloodauto("predict", model / "model.keras", placed.target, "--output", table).code == 0
        with table.open(encoding="utf-8", newline="") as stream:
            rows = sorted(csv.DictReader(stream), key=lambda row: row["name"])
        columns = [column for column in rows[0] if column.startswith("probability_")]
        assert len(columns) == 8
        answers[name] = np.array([[float(row[column]) for column in columns] for row in rows])
    assert len(answers["own"]) == len(answers["adapted"]) == 120
    assert np.abs(answers["own"] - answers["adapted"]).max() > 0.01
    np.testing.assert_allclose(answers["adapted"].sum(axis=1), 1.0, atol=1e-3)
    assert placed.run.held_out_test.path.read_text(encoding="utf-8") == before


def test_the_page_shows_all_three(placed: Placed, tmp_path: Path) -> None:
    assert bloodauto("report", "--run", placed.run.root, "--output", tmp_path / "report.html").code == 0
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    for heading in ("The front", "In laboratories left out", "Where the target images come from"):
        assert heading in page
