"""Scores by laboratory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bloodauto.data.clean import clean
from bloodauto.data.split import default_splits
from bloodauto.data.synthetic.generator import synthesize
from bloodauto.ensemble.site_scores import score_sites, write_site_scores
from bloodauto.run.directory import RunDirectory
from bloodauto.run.files import read_json


def test_each_laboratory_is_judged_on_its_own_images(tmp_path: Path) -> None:
    from dataclasses import replace

    dataset = synthesize(240, seed=0, image_size_px=16)
    dataset = replace(dataset, sites=np.array(["near", "far", "far"] * 80))
    splits = default_splits(dataset, clean(dataset, enabled=False), seed=0)
    assert splits.folds_are_sites
    folds = list(range(splits.num_folds))
    index = np.sort(np.concatenate([splits.validation_index(fold) for fold in folds]))
    labels = dataset.labels[index]
    answers = np.where(dataset.sites[index] == "near", labels, (labels + 1) % 8)
    found = {one.site: one for one in score_sites(dataset, splits, folds, labels, np.eye(8)[answers])}
    assert found["near"].accuracy == found["near"].balanced_accuracy == 1.0
    assert found["far"].accuracy == found["far"].balanced_accuracy == 0.0
    assert found["near"].images + found["far"].images == len(index)
    only_first = score_sites(
        dataset, splits, [0], labels[splits.fold[index] == 0], np.eye(8)[labels[splits.fold[index] == 0]]
    )
    assert [one.site for one in only_first] == [splits.fold_names[0]]

    run = RunDirectory(tmp_path)
    write_site_scores(run, list(found.values()))
    assert {row["site"]: row["accuracy"] for row in read_json(tmp_path / "site_scores.json")} == pytest.approx(
        {"near": 1.0, "far": 0.0}
    )
