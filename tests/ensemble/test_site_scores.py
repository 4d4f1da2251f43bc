"""Scores by laboratory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bloodauto.data.clean import clean
from bloodauto.data.split import fitting_splits
from bloodauto.data.synthetic.generator import synthesize
from bloodauto.ensemble.site_scores import score_labs, write_labs
from bloodauto.run.directory import RunDirectory
from bloodauto.run.files import read_json


def test_each_laboratory_is_judged_on_its_own_images(tmp_path: Path) -> None:
    from dataclasses import replace

    cells = synthesize(240, seed=0, image_size_px=16)
    cells = replace(cells, labs=np.array(["near", "far", "far"] * 80))
    splits = fitting_splits(cells, clean(cells, enabled=False), seed=0)
    assert splits.folds_are_labs
    folds = list(range(splits.num_folds))
    index = np.sort(np.concatenate([splits.validation_index(fold) for fold in folds]))
    labels = cells.labels[index]
    answers = np.where(cells.labs[index] == "near", labels, (labels + 1) % 8)
    found = {one.lab: one for one in score_labs(cells, splits, folds, labels, np.eye(8)[answers])}
    assert found["near"].accuracy == found["near"].balanced_accuracy == 1.0
    assert found["far"].accuracy == found["far"].balanced_accuracy == 0.0
    assert found["near"].images + found["far"].images == len(index)
    only_first = score_labs(
        cells, splits, [0], labels[splits.fold[index] == 0], np.eye(8)[labels[splits.fold[index] == 0]]
    )
    assert [one.lab for one in only_first] == [splits.fold_names[0]]

    run = RunDirectory(tmp_path)
    write_labs(run, list(found.values()))
    assert {row["lab"]: row["accuracy"] for row in read_json(tmp_path / "labs.json")} == pytest.approx(
        {"near": 1.0, "far": 0.0}
    )
