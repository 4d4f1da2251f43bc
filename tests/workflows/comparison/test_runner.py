"""Whole comparisons, as a user runs them: real trainings on a few small synthetic cells."""

from __future__ import annotations

import csv
import json
import signal
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from bloodauto.cli.main import app
from bloodauto.config.recipe import load_recipe
from bloodauto.data.synthetic.generator import synthesize
from bloodauto.data.write import write_dataset
from bloodauto.errors import BudgetError, RunError, UserError
from bloodauto.evaluation.metrics import wilson_interval
from bloodauto.run.artifacts import TrainingHistory
from bloodauto.run.directory import RunDirectory
from bloodauto.run.training_directory import TrainingDirectory
from bloodauto.workflows.comparison.runner import ComparisonRunner
from bloodauto.workflows.comparison.settings import ComparisonSettings, budget_device_seconds, load_comparison_dataset
from bloodauto.workflows.comparison.variants import Variant
from tests.command_line import Started, bloodauto_here, epochs_done

RECIPE = """\
input: {size_px: 32}
backbone: {name: own_cnn, weights: none, width: 8, blocks: 3}
augmentation: {orientation: true}
batch_size: 16
stages:
  - epochs: 3
    optimizer: {name: adamw, learning_rate: 5e-3}
    schedule: {name: constant}
tta_transforms: [{transform: identity, weight: 2}, {transform: flip_up_down}]
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    inputs = tmp_path_factory.mktemp("experiment")
    write_dataset(synthesize(240, site="lab_a", seed=3, image_size_px=32), inputs / "cells.npz")
    (inputs / "recipe.yaml").write_text(RECIPE)
    (inputs / "ablation.yaml").write_text(
        "source: {title: t}\nbase: recipe.yaml\npublished_metric: hidden_accuracy\nvariants:\n"
        "  - {name: slow, published: 0.2, overrides: {stages.0.optimizer.learning_rate: 1e-6}}\n"
        "  - {name: quick, published: 0.8}\n"
        "  - "
        "{name: diverging, published: 0.1, overrides: {stages.0.optimizer: {name: sgd, learning_rate: 1.0, momentum: 0.99}}}\n"
    )
    return inputs


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_an_ablation_is_compared_printed_and_written(folder: Path) -> None:
    run = folder / "run"
    arguments = ["ablate", folder / "ablation.yaml", "--data", folder / "cells.npz", "--run", run]
    ended = bloodauto_here(*arguments, "--json")
    assert ended.code == 0, ended.err[-3000:]
    summary = json.loads(ended.out.splitlines()[-1])
    rows = {row["name"]: row for row in summary["variants"]}
    assert list(rows) == ["slow", "quick", "diverging"]
    quick = rows["quick"]
    assert quick["epochs"] == 3
    assert quick["finished"] is True
    assert quick["forward_passes"] == 2
    assert quick["accuracy_low"] < quick["accuracy"] < quick["accuracy_high"]
    assert quick["shift_low"] <= quick["shift"] <= quick["shift_high"]
    assert rows["slow"]["shift_gain_low"] is None
    assert quick["shift_gain_low"] < quick["shift_gain_high"]
    assert summary["rank_correlations"]["variants"] == 3

    # The scores are those of the stored predictions.
    stored = RunDirectory(run).variant("quick").predictions.read()
    correct = int((stored.clean.argmax(axis=1) == stored.labels).sum())
    assert quick["accuracy"] == pytest.approx(correct / len(stored.labels))
    assert (quick["accuracy_low"], quick["accuracy_high"]) == pytest.approx(
        wilson_interval(correct, len(stored.labels))
    )
    with_tta = RunDirectory(run).variant("quick").predictions_tta.read()
    assert with_tta.clean.shape == stored.clean.shape
    assert np.abs(with_tta.clean - stored.clean).max() > 1e-4

    # The files hold what was printed, and the same command trains nothing again.
    with (run / "table.csv").open(newline="") as stream:
        assert [float(row["shift"]) for row in csv.DictReader(stream)] == [row["shift"] for row in summary["variants"]]
    assert "| quick | 0.8 |" in (run / "table.md").read_text()
    before = {path: path.stat().st_mtime_ns for path in run.rglob("best.npz")}
    again = bloodauto_here(*arguments, "--json")
    assert again.code == 0, again.err[-3000:]
    assert "epoch" not in again.out.split("same command goes on")[1].split("variant")[0]
    assert {path: path.stat().st_mtime_ns for path in run.rglob("best.npz")} == before

    other = bloodauto_here(*arguments, "--seed", 1)
    assert other.code == 2
    assert "expected the comparison that was begun there, got other settings" in other.err


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_same_command_continues_after_ctrl_c(folder: Path) -> None:
    run = folder / "interrupted"
    arguments = [
        "ablate",
        folder / "recipe.yaml",
        "--vary",
        "stages.0.epochs=6",
        "--data",
        folder / "cells.npz",
        "--run",
        run,
    ]
    with Started(*arguments) as comparison:
        second = run / "variants" / "stages.0.epochs=6"
        comparison.wait_until(
            lambda: epochs_done(TrainingDirectory(second)) >= 1, "an epoch of the second variant", timeout_seconds=400
        )
        comparison.signal(signal.SIGINT)
        ended = comparison.wait()
    assert ended.code == 130, ended.err[-3000:]
    assert "Nothing is lost" in ended.out
    assert "Traceback" not in ended.err
    done = epochs_done(TrainingDirectory(second))
    ended = bloodauto_here(*arguments)
    assert ended.code == 0, ended.err[-3000:]
    assert f"stages.0.epochs=6: epoch {done} " not in ended.out, "no epoch is trained twice"
    assert [report.epoch for report in TrainingHistory.read(second / "history.json").epochs] == [1, 2, 3, 4, 5, 6]


def test_a_subset_of_the_images_keeps_the_classes_proportions(folder: Path) -> None:
    everything = load_comparison_dataset(ComparisonSettings(str(folder / "cells.npz")))
    part = load_comparison_dataset(ComparisonSettings(str(folder / "cells.npz"), images=120))
    assert len(part) == 120
    counts = [np.bincount(dataset.labels, minlength=8) / len(dataset) for dataset in (everything, part)]
    assert np.abs(counts[0] - counts[1]).max() < 0.02
    assert set(part.names.tolist()) < set(everything.names.tolist())
    again = load_comparison_dataset(ComparisonSettings(str(folder / "cells.npz"), images=120))
    assert part.digest() == again.digest()
    other = load_comparison_dataset(ComparisonSettings(str(folder / "cells.npz"), images=120, seed=1))
    assert part.digest() != other.digest()
    with pytest.raises(UserError, match="at least 10 for each of 8 classes, got 40"):
        load_comparison_dataset(ComparisonSettings(str(folder / "cells.npz"), images=40))


def test_budgets_count_the_devices_of_the_machine() -> None:
    assert budget_device_seconds("2cpu-min", devices=4.0, on_gpu=False) == 120
    assert budget_device_seconds("1min", devices=4.0, on_gpu=False) == 240
    assert budget_device_seconds(None, devices=4.0, on_gpu=False) is None
    with pytest.raises(BudgetError, match="expected cpu or wall-clock time"):
        budget_device_seconds("2gpu-h", devices=4.0, on_gpu=False)


def test_a_folder_with_other_files_is_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    recipe = load_recipe(folder / "recipe.yaml")
    with pytest.raises(RunError, match="expected an empty or new folder"):
        ComparisonRunner(tmp_path, ComparisonSettings(str(folder / "cells.npz")), [Variant("a", recipe)])
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["ablate", "{recipe}"], "expected path=value,value for the recipe"),
        (["ablate", "{ablation}", "--vary", "batch_size=4,8"], "declares its own variants"),
        (["ablate", "{recipe}", "--vary", "batch_size=8", "--epochs", "3"], "--epochs: expected --backbone with it"),
        (["ablate", "{recipe}", "--vary", "batch_size=8", "--budget", "much"], "--budget: expected an amount"),
        (["ablate", "{recipe}", "--vary", "batch_size=8", "--data", "nowhere.npz"], "nowhere.npz"),
        (["ablate", "ynwa_laddr"], "did you mean 'ynwa_ladder'"),
        (["ablate", "ynwa_backbones", "--backbone", "mobilenet_0.25", "--epochs", "2"], "both train the same"),
        (["ablate", "{recipe}", "--vary", "backbone={{name: mobilnet_0.25}}"], "did you mean 'mobilenet_0.25'"),
        (["trials", "--reproduce"], "expected --budget or --epochs"),
        (["trials", "--reproduce", "--epochs", "2", "--backbone", "mobilnet_0.25"], "did you mean 'mobilenet_0.25'"),
        (["trials", "{recipe}", "--reproduce", "--epochs", "2"], "expected no path"),
        (["train", "ynwo", "--smoke"], "did you mean 'ynwa'"),
        (["train", "{recipe}", "--smoke"], "expected a group 'smoke'"),
        (["export-trained", "nowhere", "--output", "out"], "expected a training of bloodauto train"),
    ],
)
def test_a_mistake_is_reported_before_anything_is_trained(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    files = {"recipe": folder / "recipe.yaml", "ablation": folder / "ablation.yaml"}
    result = CliRunner().invoke(app, [argument.format(**files) for argument in arguments])
    assert isinstance(result.exception, UserError), result.output
    assert result.exception.exit_code == 2
    assert message in str(result.exception)
    assert not list(tmp_path.rglob("*.npz"))
