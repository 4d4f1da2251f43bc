"""Every file of a run has one place, and an old run is refused with one clear message."""

from __future__ import annotations

from pathlib import Path

import pytest

from bloodauto.errors import RunError
from bloodauto.run.directory import RUN_FORMAT_VERSION, ExportDirectory, RunDirectory
from bloodauto.run.training_directory import TrainingDirectory


def _paths(directory: object) -> list[Path]:
    values = [
        getattr(directory, name)
        for name, value in vars(type(directory)).items()
        if isinstance(value, property) and name != "single_training" and not name.startswith(("has_", "is_"))
    ]
    return [
        value if isinstance(value, Path) else value.root if isinstance(value, ExportDirectory) else value.path
        for value in values
    ]


@pytest.mark.parametrize("kind", [RunDirectory, TrainingDirectory, ExportDirectory])
def test_every_file_has_its_own_path(kind):
    paths = _paths(kind(Path("run")))
    assert all(path.is_relative_to("run") for path in paths)
    assert len(set(paths)) == len(paths) >= 6


def test_trainings_lie_in_directories_by_kind():
    run = RunDirectory(Path("run"))
    assert run.trial(17).root == Path("run/trials/00017")
    assert run.refit("00017-fold0-seed3").root == Path("run/refits/00017-fold0-seed3")
    assert run.variant("with mixup").root == Path("run/variants/with mixup")
    assert run.single_training.root == run.root


def test_directories_of_trainings_are_listed_in_order(tmp_path):
    run = RunDirectory(tmp_path)
    assert not list(run.trials())
    for number in (3, 1):
        run.trial(number).root.mkdir(parents=True)
    (tmp_path / "trials" / "notes.txt").touch()
    assert [training.root.name for training in run.trials()] == ["00001", "00003"]


@pytest.mark.parametrize("settings", ["budget: 2h\n", "format_version: 99\nbudget: 2h\n", "- a list\n"])
def test_an_old_run_is_refused(tmp_path, settings):
    run = RunDirectory(tmp_path)
    run.settings.write_text(settings, encoding="utf-8")
    with pytest.raises(RunError, match=r"settings\.yaml: format_version: expected 2, got .*start a new run"):
        run.check_format()


@pytest.mark.parametrize("settings", [None, f"format_version: {RUN_FORMAT_VERSION}\n", "{ no yaml"])
def test_other_runs_pass(tmp_path, settings):
    run = RunDirectory(tmp_path)
    if settings is not None:
        run.settings.write_text(settings, encoding="utf-8")
    run.check_format()
