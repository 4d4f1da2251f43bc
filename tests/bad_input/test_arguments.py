"""Options, budgets, storages and run directories that cannot be used; refused before anything is written."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from bloodauto.config.settings import resolve_settings, write_settings
from bloodauto.run.directory import RunDirectory
from tests.bad_input.refusal import refused
from tests.search_fixtures import Inputs

GOOD = "--data cells.npz --space short.yaml --budget 1cpu-min"


@pytest.fixture
def here(inputs: Inputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with images, a space, a file and a folder."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(inputs.dataset, "cells.npz")
    shutil.copy(inputs.short_space, "short.yaml")
    Path("file").write_text("keep")
    Path("folder").mkdir()
    return tmp_path


BUDGETS = [
    "",
    "0",
    "1",
    "-1cpu-h",
    "0cpu-h",
    "1e3cpu-h",
    "nancpu-h",
    "infh",
    "1 hour",
    "1cpu",
    "1tpu-h",
    "1gpu-h",
    "1cpu-y",
    "min",
]


@pytest.mark.parametrize("budget", BUDGETS)
def test_budgets(here: Path, budget: str) -> None:
    ended = refused(
        here, "search", "--data", "cells.npz", "--space", "short.yaml", f"--budget={budget}", "--run", "run"
    )
    assert "budget" in ended.err
    assert "expected" in ended.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--workers 0", "--workers"),
        ("--workers -3", "--workers"),
        ("--cpus-per-trial 0", "--cpus-per-trial"),
        ("--cpus-per-trial nan", "--cpus-per-trial"),
        ("--cpus-per-trial inf", "--cpus-per-trial"),
        ("--gpus-per-trial -1", "--gpus-per-trial"),
        ("--gpus-per-trial nan", "--gpus-per-trial"),
        ("--gpus-per-trial 1", "--gpus-per-trial"),
        ("--seed -1", "--seed"),
        ("--refit-fraction 0", "--refit-fraction"),
        ("--refit-fraction 1.5", "--refit-fraction"),
        ("--refit-fraction nan", "--refit-fraction"),
        ("--max-trials 0", "--max-trials"),
        ("--max-members 0", "--max-members"),
        ("--max-latency-ms 0", "--max-latency-ms"),
        ("--max-latency-ms nan", "--max-latency-ms"),
        ("--image-size-px 0", "--image-size-px"),
        ("--image-size-px -8", "--image-size-px"),
        ("--image-size-px 1000000", "--image-size-px"),
        ("--objective fame", "fame"),
        ("--objective shift,shift", "shift"),
        ("--objective latency", "latency"),
        ("--objective ,", "objective"),
        ("--pruner axe", "axe"),
        ("--objective shift,latency --pruner hyperband", "hyperband"),
        ("--warm-start nowhere", "nowhere"),
        ("--warm-start file", "file"),
        ("--warm-start folder", "folder"),
        ("--target-images nowhere", "nowhere"),
        ("--target-images file", "file"),
        ("--target-images folder", "folder"),
        ("--storage nonsense", "nonsense"),
        ("--storage nonsense://ada:secret@host/x", "nonsense://ada:***@host/x"),
        ("--storage postgresql://ada:sec@ret@127.0.0.1:9/x", "ada:***@"),
        ("--storage sqlite:////proc/nowhere/x.db", "/proc/nowhere/x.db"),
    ],
)
def test_options(here: Path, arguments: str, message: str) -> None:
    ended = refused(here, "search", *GOOD.split(), *arguments.split(), "--run", "new")
    assert message in ended.err
    assert "secret" not in ended.err
    assert "sec@" not in ended.err
    assert "ret@" not in ended.err


@pytest.mark.parametrize("run", ["file", "file/run", "/proc/run", "\x1b[31m", "run\nreport"])
def test_run_directories(here: Path, run: str) -> None:
    refused(here, "search", *GOOD.split(), "--run", run)


@pytest.mark.parametrize(
    "arguments",
    [
        "data inspect --data cells.npz --output folder",
        "data inspect --data cells.npz --output file/x.csv",
        "data inspect --data cells.npz --output /proc/x.csv",
        "data inspect --data cells.npz --contact-sheet folder",
        "data inspect --data cells.npz --image-size-px 1",
        "data synth --output file/x.npz --images 20",
        "data synth --output file --images 20",
        "data synth --output x.csv --images 20",
        "data synth --output x.NPZ --images 20",
        "data synth --output x.npz --images 0",
        "data synth --output x.npz --images -5",
        "data synth --output x.npz --images 20 --image-size-px 1",
        "data synth --output x.npz --images 20 --site lab_z",
        "data synth --output x.npz --images 20 --label-noise 2",
        "data synth --output x.npz --images 20 --duplicates nan",
        "data synth --output x.npz --images 20 --outliers many",
        "data augment --recipe tiny_cnn --data cells.npz --output folder",
        "data augment --recipe nowhere --data cells.npz --output x.png",
        "data augment --recipe tiny_cnn --data cells.npz --output x.png --stage 9",
        "data fetch nowhere --output x",
        "predict nowhere cells.npz --output x.csv",
        "predict folder cells.npz --output x.csv",
        "predict file cells.npz --output x.csv",
        "predict file cells.npz --output folder",
        "report --run nowhere",
        "report --run folder",
        "report --run file",
        "dashboard --once --run nowhere",
        "export-best --run nowhere --output x",
        "export-best --run folder --output file",
        "export-best --run folder --output x --format docx",
        "export-best --run folder --output x --max-members 0",
        "export-trained folder --output x --data cells.npz",
        "export-trained nowhere --output x --data cells.npz",
        "export-trained folder --output x --data cells.npz --weights a",
        "search --resume --run nowhere",
        "search --resume --run folder",
        "search --resume --run file",
        "train nowhere --data cells.npz --run new",
        "train short.yaml --data cells.npz --run new",
        "train tiny_cnn --data nowhere --run new",
        "train tiny_cnn --data cells.npz --run file",
    ],
)
def test_commands(here: Path, arguments: str) -> None:
    refused(here, *arguments.split())


@pytest.fixture
def run(here: Path) -> RunDirectory:
    """A run that was killed before its first trial."""
    run = RunDirectory(here / "run")
    requested = {"data": str(here / "cells.npz"), "space": "short.yaml", "budget": "1cpu-min", "workers": 1}
    write_settings(run, resolve_settings(requested))
    shutil.copy("short.yaml", run.space)
    return run


def changed_settings(**values: object) -> Callable[[RunDirectory], None]:
    def change(run: RunDirectory) -> None:
        lines = [line for line in run.settings.read_text().splitlines() if line.split(":")[0] not in values]
        lines += [f"{name}: {json.dumps(value)}" for name, value in values.items() if value is not None]
        run.settings.write_text("\n".join(lines) + "\n")

    return change


def other_images(run: RunDirectory) -> None:
    with np.load("cells.npz") as arrays:
        changed = dict(arrays)
    changed["images"] = 255 - changed["images"]
    np.savez("cells.npz", **changed)
    run.fingerprint.path.write_text(
        json.dumps(
            {
                "format_version": 1,
                "source": "cells.npz",
                "images": 400,
                "height_px": 32,
                "width_px": 32,
                "classes": {},
                "sites": {},
                "excluded": 0,
                "digest": "0" * 64,
            }
        )
    )


def unreadable_study(run: RunDirectory) -> None:
    run.study.write_bytes(b"no database" * 100)


RUNS: dict[str, tuple[Callable[[RunDirectory], object], str]] = {
    "no format version": (changed_settings(format_version=None), "format_version"),
    "an older version": (changed_settings(format_version=0), "another version"),
    "a newer version": (changed_settings(format_version=99), "another version"),
    "a version in words": (changed_settings(format_version="one"), "format_version"),
    "an unknown setting": (changed_settings(colour="red"), "colour"),
    "a missing setting": (changed_settings(budget=None), "budget"),
    "a wrong setting": (changed_settings(workers="many"), "workers"),
    "a wrong budget": (changed_settings(budget="lots"), "budget"),
    "a wrong objective": (changed_settings(objective="fame"), "fame"),
    "empty settings": (lambda run: run.settings.write_text(""), "settings.yaml"),
    "settings cut short": (lambda run: run.settings.write_text("format_version: 2\nbudget: {"), "settings.yaml"),
    "settings that are a picture": (lambda run: run.settings.write_bytes(b"\x89PNG\xff"), "settings.yaml"),
    "no space": (lambda run: run.space.unlink(), "space.yaml"),
    "a broken space": (lambda run: run.space.write_text("input: {"), "space.yaml"),
    "images that are gone": (lambda run: Path("cells.npz").unlink(), "cells.npz"),
    "other images": (other_images, "have changed"),
    "a broken fingerprint": (lambda run: run.fingerprint.path.write_text("{"), "fingerprint.json"),
    "a study that is none": (unreadable_study, "study"),
}


@pytest.mark.parametrize("case", RUNS)
def test_runs(here: Path, run: RunDirectory, case: str) -> None:
    damage, message = RUNS[case]
    damage(run)
    # Whoever looks at a run may lock it.
    run.lock.touch()
    assert message in refused(here, "search", "--resume", "--run", "run").err
