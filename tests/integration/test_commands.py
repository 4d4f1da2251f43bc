"""The commands beside ``search``: one training, and what there is to do with images."""

from __future__ import annotations

import csv
import signal
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from bloodauto.cli.main import app
from bloodauto.data.load import load_dataset
from bloodauto.errors import DataError
from bloodauto.run.training_directory import TrainingDirectory
from tests.command_line import Started, bloodauto_here, epochs_done, kept_files
from tests.search_fixtures import Inputs

RECIPE = """
input: {{size_px: 48}}
backbone: {{name: own_cnn, weights: none}}
augmentation: {{orientation: true}}
batch_size: 32
stages:
  - epochs: 10
    unfreeze: all
    optimizer: {{name: adamw, learning_rate: {rate}}}
    schedule: {{name: constant}}
"""


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_training_continues_after_ctrl_c_and_refuses_another_recipe(inputs: Inputs, tmp_path: Path) -> None:
    for name, rate in (("first", "3.0e-3"), ("other", "4.0e-3")):
        (tmp_path / f"{name}.yaml").write_text(RECIPE.format(rate=rate))
    run = tmp_path / "run"
    arguments = ["train", tmp_path / "first.yaml", "--run", run, "--data", inputs.dataset]
    with Started(*arguments) as training:
        training.wait_until(lambda: epochs_done(TrainingDirectory(run)) >= 2, "the second epoch")
        training.signal(signal.SIGINT)
        ended = training.wait()
    assert ended.code == 130
    assert "Go on with the same command." in ended.out
    assert "Traceback" not in ended.err
    before = epochs_done(TrainingDirectory(run))
    assert 2 <= before < 10

    ended = bloodauto_here(*arguments)
    assert ended.code == 0, ended.err[-3000:]
    assert "finished after 10 epochs" in ended.out
    assert f"epoch {before} " not in ended.out, "no epoch is trained twice"
    assert [report.epoch for report in TrainingDirectory(run).history.read().epochs] == list(range(1, 11))

    files = kept_files(run)
    other = bloodauto_here("train", tmp_path / "other.yaml", "--run", run, "--data", inputs.dataset)
    assert other.code == 2
    assert "another recipe was trained there" in other.err
    assert kept_files(run) == files


def printed(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.parametrize("name", ["cells.npz", "cells"])
def test_synthetic_cells_are_written_and_inspected(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    drawn = ("--images", 60, "--image-size-px", 32, "--duplicates", 0.1, "--site", "lab_b", "--seed", 5)
    assert str(path) in printed("data", "synth", "--output", path, *drawn)
    dataset = load_dataset(path)
    assert dataset.images.shape == (60, 32, 32, 3)
    text = printed("data", "inspect", "--data", path, "--output", tmp_path / "found.csv")
    assert "60 images of 32 x 32 px, 8 classes" in text
    assert "6 x exact_duplicate: excluded" in text
    with (tmp_path / "found.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 60
    assert sum(row["finding"] == "exact_duplicate" for row in rows) == 6


def test_a_contact_sheet_shows_a_recipes_augmentation(inputs: Inputs, tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(RECIPE.format(rate="3.0e-3"))
    arguments = ("data", "augment", "--recipe", tmp_path / "recipe.yaml", "--data", inputs.dataset, "--rows", 3)
    printed(*arguments, "--output", tmp_path / "a.png")
    printed(*arguments, "--output", tmp_path / "b.png")
    printed(*arguments, "--output", tmp_path / "c.png", "--seed", 1)
    contact_sheet = cv2.imread(str(tmp_path / "a.png"))
    assert contact_sheet.shape[0] >= 3 * 48
    assert contact_sheet.shape[1] >= 2 * 48
    assert np.unique(contact_sheet).size > 50
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert (tmp_path / "a.png").read_bytes() != (tmp_path / "c.png").read_bytes()


def test_a_download_without_a_network_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        # Nothing listens on the discard port: refused at once.
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with pytest.raises(DataError):
        printed("data", "fetch", "bloodmnist", "--size-px", 28, "--output", tmp_path / "downloads")
    assert not list(tmp_path.rglob("*.npz"))


def test_the_shipped_spaces_and_recipes_pass_their_own_checks() -> None:
    listed = printed("spaces")
    assert {line.partition(":")[0] for line in listed.splitlines()} == {"gpu", "reports", "small", "tiny"}
    assert "stages.0.optimizer" in printed("spaces", "tiny")
    recipes = printed("trials").splitlines()
    assert len(recipes) >= 4
    assert not [line for line in recipes if "no shipped space" in line]
