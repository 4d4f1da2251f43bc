"""Mistakes people make: each is met by exit code 2 and a sentence, with no traceback and nothing half-written."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from bloodauto.cli.main import main
from bloodauto.config.shipped import shipped_folder

from .conftest import Material


@pytest.fixture
def here(material: Material, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with good and bad things in it."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(material.dataset, "cells.npz")
    shutil.copy(material.short, "short.yaml")
    Path("misspelt.yaml").write_text(material.short.read_text().replace("dropout", "dropuot"))
    Path("cut.npz").write_bytes(material.dataset.read_bytes()[:2000])
    Path("file").write_text("no folder")
    Path("garbage.keras").write_text("no model")
    Path("empty").mkdir()
    Path("single/platelet").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for index in range(12):
        cv2.imwrite(f"single/platelet/{index}.png", rng.integers(0, 256, (48, 48, 3), dtype=np.uint8))
    return tmp_path


def ended(arguments: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Exit code and standard error of the command line, in this process."""
    monkeypatch.setattr("sys.argv", ["bloodauto", *arguments.split()])
    with pytest.raises(SystemExit) as exit_:
        main()
    assert isinstance(exit_.value.code, int)
    return exit_.value.code, capsys.readouterr().err


GOOD = "--data cells.npz --space short.yaml --budget 1cpu-min"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("search --data nowhere.npz --space short.yaml --budget 1cpu-min", "nowhere.npz: expected a file or folder"),
        ("search --data cut.npz --space short.yaml --budget 1cpu-min", "cut.npz"),
        ("search --data single --space short.yaml --budget 1cpu-min", "class"),
        ("search --data empty --space short.yaml --budget 1cpu-min", "empty"),
        ("search --data cells.npz --space short.yaml", "--budget: missing"),
        ("search --data cells.npz --space short.yaml --budget lots", "--budget: expected an amount with a unit"),
        ("search --data cells.npz --space short.yaml --budget 0h", "--budget: expected more than nothing"),
        ("search --data cells.npz --space short.yaml --budget 2gpu-h --gpus-per-trial 0", "--gpus-per-trial"),
        ("search --data cells.npz --budget 1cpu-min --space tinny", "did you mean 'tiny'?"),
        ("search --data cells.npz --budget 1cpu-min --space nowhere.yaml", "nowhere.yaml"),
        ("search --data cells.npz --budget 1cpu-min --space misspelt.yaml", "did you mean 'dropout'?"),
        (f"search {GOOD} --objective balanced_acuracy", "did you mean 'balanced_accuracy'?"),
        (f"search {GOOD} --pruner hyperbnd", "did you mean 'hyperband'?"),
        (f"search {GOOD} --workers 0", "--workers: expected 1 or more"),
        (f"search {GOOD} --cpus-per-trial 0", "--cpus-per-trial: expected more than 0"),
        (f"search {GOOD} --seed -1", "--seed: expected 0 or more"),
        (f"search {GOOD} --max-trials 0", "--max-trials: expected at least 1"),
        (f"search {GOOD} --refit-fraction 1", "--refit-fraction: expected a fraction"),
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
def test_nothing_is_begun(
    here: Path, arguments: str, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(here.rglob("*"))
    code, err = ended(f"{arguments} --run run", monkeypatch, capsys)
    assert code == 2
    assert err.startswith("error: ")
    assert said in err
    assert "Traceback" not in err
    assert sorted(here.rglob("*")) == before


@pytest.mark.parametrize("run", ["file", "file/run"])
def test_a_run_needs_a_folder(
    here: Path, run: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(here.rglob("*"))
    code, err = ended(f"search {GOOD} --run {run}", monkeypatch, capsys)
    assert code == 2
    assert f"error: {run}: expected a folder" in err
    assert sorted(here.rglob("*")) == before


def test_a_storage_that_cannot_be_had_leaves_no_run(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, err = ended(f"search {GOOD} --run run --storage nonsense://host/x", monkeypatch, capsys)
    assert code == 2
    assert "--storage nonsense://host/x" in err
    assert not (here / "run" / "settings.yaml").exists()


def test_a_run_that_has_only_begun(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Killed before its first trial, say: nothing to export, and no place for another search."""
    from bloodauto.config.settings import resolve_settings, write_settings
    from bloodauto.run.directory import RunDirectory

    given = {"data": "cells.npz", "space": "short.yaml", "budget": "1cpu-min", "workers": 1}
    write_settings(RunDirectory(here / "run"), resolve_settings(given))
    before = sorted(here.rglob("*"))
    for arguments, said in (
        ("export-best --run run --output out", "expected an ensemble"),
        (f"search {GOOD} --run run", "a run is there already"),
        ("search --resume --run run --budget 2cpu-min", "budget: the run has '1cpu-min', you gave '2cpu-min'"),
    ):
        code, err = ended(arguments, monkeypatch, capsys)
        assert code == 2
        assert said in err
        assert sorted(here.rglob("*")) == before


@pytest.mark.parametrize(
    ("arguments", "said"),
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
def test_other_commands(
    here: Path, arguments: str, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(here.rglob("*"))
    code, err = ended(arguments, monkeypatch, capsys)
    assert code == 2
    assert "error: " in err
    assert said in err
    assert "Traceback" not in err
    assert sorted(here.rglob("*")) == before


@pytest.fixture
def no_weights(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No ImageNet weights on the disk, and no network to get them from."""
    monkeypatch.setenv("KERAS_HOME", str(here / "empty"))
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        # Nothing listens on the discard port: refused at once.
        monkeypatch.setenv(name, "http://127.0.0.1:9")


@pytest.mark.parametrize("command", ["search --space small --budget 2cpu-min", "train small_mobilenet_025"])
def test_what_is_wrong_with_the_images_is_said_before_weights_are_looked_for(
    here: Path, no_weights: None, command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "rubbish.npz").write_bytes(b"rubbish")
    code, err = ended(f"{command} --data rubbish.npz --run run", monkeypatch, capsys)
    assert code == 2
    assert "rubbish.npz" in err
    assert "weights" not in err
    assert not (here / "run").exists()


def test_weights_that_are_not_there_and_cannot_be_downloaded(
    here: Path, no_weights: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = shipped_folder("trials") / "small_mobilenet_025.yaml"
    code, err = ended(f"train {recipe} --data cells.npz --run run", monkeypatch, capsys)
    assert code == 2
    assert "expected its ImageNet weights" in err
    assert "--weights-dir" in err
    assert not (here / "run").exists()
