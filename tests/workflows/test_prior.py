"""What earlier runs found starts a search; folders that hold nothing to start from are clear errors."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest

from bloodauto.config.settings import SearchSettings, write_settings
from bloodauto.config.shipped import find_space
from bloodauto.config.space import parameters_of
from bloodauto.errors import RunError
from bloodauto.run.directory import RunDirectory
from bloodauto.run.study_attributes import TrialAttributes, initial_origin
from bloodauto.testing.simulated_search import tiny_recipe, tiny_space
from bloodauto.tuning.study import StudyRecord, TrialEnd, quiet_optuna
from bloodauto.workflows.planning import InitialConfigurations, save_space
from bloodauto.workflows.prior import load_prior

SPACE = tiny_space()
SETTINGS = SearchSettings(budget="1h", space="tiny", workers=1, gpus_per_trial=0.0)
#: Objective of each recipe in the earlier run, by width and learning rate.
EARLIER = {(16, 2e-3): 0.7, (16, 5e-3): 0.8, (32, 2e-3): 0.75}


@pytest.fixture(scope="module")
def earlier(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    run = RunDirectory(tmp_path_factory.mktemp("earlier"))
    write_settings(run, SETTINGS)
    save_space(run, find_space("tiny"))
    assert run.space.read_text().startswith("format_version: 1\n")
    record = StudyRecord.open(run, SPACE, SETTINGS.objectives)
    with quiet_optuna():
        for (width, rate), objective in EARLIER.items():
            record.enqueue(parameters_of(SPACE, tiny_recipe(SPACE, width, rate)), initial_origin(f"{width} {rate}"))
            candidate = record.ask(optuna.samplers.RandomSampler(seed=0))
            assert candidate is not None
            record.record_end(candidate.number, TrialEnd("complete", objective=objective, epochs_done=6))
    return run


def test_the_best_recipes_of_each_backbone_start_a_search(earlier: RunDirectory) -> None:
    prior = load_prior([str(earlier.root)], SPACE, SETTINGS)
    assert [trial.objective for trial in prior.trials] == sorted(EARLIER.values(), reverse=True)
    assert [recipe for _, recipe in prior.initial] == [tiny_recipe(SPACE, 16, 5e-3), tiny_recipe(SPACE, 32, 2e-3)]
    shipped = tuple((name, tiny_recipe(SPACE, 16, rate)) for name, rate in (("first", 2e-3), ("second", 5e-3)))
    initial = InitialConfigurations(shipped, ()).with_prior(prior.initial)
    assert [name for name, _ in initial.in_space] == ["first", f"{earlier.root.name} trial 2", "second"]
    assert load_prior([], SPACE, SETTINGS).trials == ()


def test_an_earlier_run_is_only_read(earlier: RunDirectory) -> None:
    before = earlier.study.read_bytes()
    load_prior([str(earlier.root)], SPACE, SETTINGS)
    assert earlier.study.read_bytes() == before
    with quiet_optuna():
        study = optuna.load_study(study_name="bloodauto", storage=f"sqlite:///{earlier.study}")
    assert {TrialAttributes.read(trial).outcome for trial in study.get_trials()} == {"complete"}


def test_what_cannot_be_started_from_is_a_clear_error(earlier: RunDirectory, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="expected a run"):
        load_prior([str(tmp_path)], SPACE, SETTINGS)
    with pytest.raises(RunError, match="one that maximises shift"):
        load_prior([str(earlier.root)], SPACE, SETTINGS.replace(objective="accuracy"))
    empty = RunDirectory(tmp_path / "empty")
    empty.root.mkdir()
    write_settings(empty, SETTINGS)
    save_space(empty, find_space("tiny"))
    StudyRecord.open(empty, SPACE, SETTINGS.objectives)
    with pytest.raises(RunError, match="completed trials"):
        load_prior([str(empty.root)], SPACE, SETTINGS)
