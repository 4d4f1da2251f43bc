"""Mistakes that people make: each ends with exit code 2 and a sentence, without a traceback or half-written files."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from bloodauto.config.shipped import shipped_folder
from tests.command_line import bloodauto_here
from tests.search_fixtures import Inputs


@pytest.fixture
def here(inputs: Inputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with good and bad things in it."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(inputs.dataset, "cells.npz")
    shutil.copy(inputs.short_space, "short.yaml")
    Path("misspelt.yaml").write_text(inputs.short_space.read_text().replace("dropout", "dropuot"))
    Path("cut.npz").write_bytes(inputs.dataset.read_bytes()[:2000])
    Path("file").write_text("no folder")
    Path("garbage.keras").write_text("no model")
    Path("empty").mkdir()
    Path("single/platelet").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for index in range(12):
        cv2.imwrite(f"single/platelet/{index}.png", rng.integers(0, 256, (48, 48, 3), dtype=np.uint8))
    return tmp_path


GOOD = "--data cells.npz --space short.yaml --budget 1cpu-min"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("search --data nowhere.npz --space short.yaml --budget 1cpu-min", "nowhere.npz: expected a file or folder"),
        ("search --data cut.npz --space short.yaml --budget 1cpu-min", "cut.npz"),
        ("search --data single --space short.yaml --budget 1cpu-min", "class"),
        ("search --data empty --space short.yaml --budget 1cpu-min", "empty"),
        ("search --data cells.npz --space short.yaml", "--budget: missing"),
        ("search --data cells.npz --space short.yaml --budget lots", "--budget: expected an amount with a unit"),
        ("search --data cells.npz --space short.yaml --budget 0h", "--budget: expected more than nothing"),
        ("search --data cells.npz --space short.yaml --budget 2gpu-h --gpus-per-trial 0", "--gpus-per-trial"),
        (
            "search --data cells.npz --space short.yaml --budget 2cpu-s --workers 1",
            "--budget 2cpu-s: expected at least",
        ),
        ("search --data cells.npz --budget 1cpu-min --space tinny", "did you mean 'tiny'?"),
        ("search --data cells.npz --budget 1cpu-min --space nowhere.yaml", "nowhere.yaml"),
        ("search --data cells.npz --budget 1cpu-min --space misspelt.yaml", "did you mean 'dropout'?"),
        (f"search {GOOD} --objective balanced_acuracy", "did you mean 'balanced_accuracy'?"),
        (f"search {GOOD} --pruner hyperbnd", "did you mean 'hyperband'?"),
        (f"search {GOOD} --workers 0", "--workers: expected at least 1"),
        (f"search {GOOD} --cpus-per-trial 0", "--cpus-per-trial: expected more than 0"),
        (f"search {GOOD} --seed -1", "--seed: expected at least 0"),
        (f"search {GOOD} --max-trials 0", "--max-trials: expected at least 1"),
        (f"search {GOOD} --refit-fraction 1", "--refit-fraction: expected less than 1"),
        (f"search {GOOD} --warm-start nowhere", "nowhere"),
        (f"search {GOOD} --image-size-px 4", "--image-size-px: expected at least 16 px, got 4"),
        ("search --resume", "expected a run"),
        ("export-best --output out", "expected a run"),
        ("report", "expected a run directory"),
        ("dashboard --once", "expected a run directory"),
        ("train nowhere.yaml --data cells.npz", "nowhere.yaml"),
        ("train short.yaml --data cells.npz", "short.yaml"),
    ],
)
def test_a_mistake_writes_nothing(here: Path, arguments: str, message: str) -> None:
    before = sorted(here.rglob("*"))
    ended = bloodauto_here(*f"{arguments} --run run".split())
    assert ended.code == 2
    assert ended.err.startswith("error: ")
    assert message in ended.err
    assert "Traceback" not in ended.err
    assert sorted(here.rglob("*")) == before


@pytest.mark.parametrize("run", ["file", "file/run"])
def test_a_run_needs_a_folder(here: Path, run: str) -> None:
    before = sorted(here.rglob("*"))
    ended = bloodauto_here(*f"search {GOOD} --run {run}".split())
    assert ended.code == 2
    assert f"error: {run}: expected a folder" in ended.err
    assert sorted(here.rglob("*")) == before


def test_an_unusable_storage_leaves_no_run(here: Path) -> None:
    ended = bloodauto_here(*f"search {GOOD} --run run --storage nonsense://host/x".split())
    assert ended.code == 2
    assert "--storage nonsense://host/x" in ended.err
    assert not (here / "run" / "settings.yaml").exists()


def test_a_run_without_trials_cannot_be_exported_or_replaced(here: Path) -> None:
    """Killed before its first trial, say: nothing to export, and no place for another search."""
    from bloodauto.config.settings import resolve_settings, write_settings
    from bloodauto.run.directory import RunDirectory

    requested = {"data": "cells.npz", "space": "short.yaml", "budget": "1cpu-min", "workers": 1}
    write_settings(RunDirectory(here / "run"), resolve_settings(requested))
    before = sorted(here.rglob("*"))
    for arguments, message in (
        ("export-best --run run --output out", "expected an ensemble"),
        (f"search {GOOD} --run run", "a run is there already"),
        ("search --resume --run run --budget 2cpu-min", "budget: the run has '1cpu-min', you gave '2cpu-min'"),
    ):
        ended = bloodauto_here(*arguments.split())
        assert ended.code == 2
        assert message in ended.err
        assert sorted(here.rglob("*")) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("predict nowhere cells.npz --output out.csv", "nowhere: expected an exported model"),
        ("predict garbage.keras cells.npz --output out.csv", "garbage.keras: expected a Keras model"),
        ("predict file cells.npz --output out.csv", "file: expected a file ending in .keras"),
        ("data inspect --data cut.npz", "cut.npz"),
        ("data synth --output out.npz --site lab_z", "lab_z"),
        ("data synth --output out.npz --outliers many", "--outliers: expected whole numbers"),
        ("data augment --recipe misspelt.yaml --data cells.npz --output out.png", "misspelt.yaml"),
        (
            "data augment --recipe small_mobilnet_025 --data cells.npz --output out.png",
            "did you mean 'small_mobilenet_025'",
        ),
        ("data fetch bloodmnits --output out", "bloodmnits"),
        ("data fetch bloodmnist --size-px 65 --output out", "65"),
        ("spaces tinny", "did you mean 'tiny'?"),
        ("trials short.yaml", "short.yaml"),
    ],
)
def test_other_commands(here: Path, arguments: str, message: str) -> None:
    before = sorted(here.rglob("*"))
    ended = bloodauto_here(*arguments.split())
    assert ended.code == 2
    assert "error: " in ended.err
    assert message in ended.err
    assert "Traceback" not in ended.err
    assert sorted(here.rglob("*")) == before


@pytest.fixture
def no_weights(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No ImageNet weights on the disk, and no network to get them from."""
    monkeypatch.setenv("KERAS_HOME", str(here / "empty"))
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        # Nothing listens on the discard port: refused at once.
        monkeypatch.setenv(name, "http://127.0.0.1:9")


@pytest.mark.parametrize("command", ["search --space small --budget 2cpu-min", "train small_mobilenet_025"])
def test_a_fault_of_the_images_is_reported_before_weights_are_searched(
    here: Path, no_weights: None, command: str
) -> None:
    (here / "rubbish.npz").write_bytes(b"rubbish")
    ended = bloodauto_here(*f"{command} --data rubbish.npz --run run".split())
    assert ended.code == 2
    assert "rubbish.npz" in ended.err
    assert "weights" not in ended.err
    assert not (here / "run").exists()


def test_missing_weights_that_cannot_be_downloaded_are_reported(here: Path, no_weights: None) -> None:
    recipe = shipped_folder("trials") / "small_mobilenet_025.yaml"
    ended = bloodauto_here(*f"train {recipe} --data cells.npz --run run".split())
    assert ended.code == 2
    assert "expected its ImageNet weights" in ended.err
    assert "--weights-dir" in ended.err
    assert not (here / "run").exists()
