from __future__ import annotations

import pytest

from bloodauto.report.formatting import duration, percent, short_names, shorten, training_name


@pytest.mark.parametrize(
    ("seconds", "device", "text"),
    [
        (0.0, "gpu", "0 GPU-s"),
        (95.0, "gpu", "95 GPU-s"),
        (5400.0, "cpu", "90 CPU-min"),
        (144_000.0, "gpu", "40 GPU-h"),
        (7_200_000.0, "gpu", "2,000 GPU-h"),
        (600.0, "device", "10 device-min"),
        (600.0, "", "10 min"),
        (None, "gpu", "–"),
    ],
)
def test_durations(seconds: float | None, device: str, text: str) -> None:
    assert duration(seconds, device) == text


def test_percent() -> None:
    assert percent(0.9134) == "91.3\u202f%"
    assert percent(0.0) == "0.0\u202f%"
    assert percent(None) == "–"


def test_short_names_still_tell_paths_apart() -> None:
    paths = ("stages.0.optimizer.name", "stages.1.optimizer.name", "backbone.name", "seed")
    assert short_names(paths) == ("0.optimizer.name", "1.optimizer.name", "backbone.name", "seed")


def test_shorten_keeps_both_ends() -> None:
    assert shorten("efficientnetv2-b0", 9) == "effi…2-b0"
    assert len(shorten("x" * 50, 10)) == 10
    assert shorten("short", 10) == "short"


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("00001", "trial 1"),
        ("00001-fold0-seed3", "trial 1, refit seed 3"),
        ("00012-fold2-seed0", "trial 12, refit seed 0 fold 2"),
        ("00012-folds", "trial 12, refit on every fold"),
        ("mine", "mine"),
        ("12", "12"),
    ],
)
def test_trainings_are_named_for_readers(name: str, label: str) -> None:
    assert training_name(name) == label
