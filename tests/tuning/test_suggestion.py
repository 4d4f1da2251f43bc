"""Initial configurations come first; then TPE and local perturbations, the same for the same seed."""

from __future__ import annotations

from collections.abc import Iterator

import optuna
import pytest

from bloodauto.config.objectives import Objectives
from bloodauto.config.recipe import Recipe
from bloodauto.run.study_attributes import TrialAttributes
from bloodauto.testing.simulated_search import tiny_recipe, tiny_space
from bloodauto.tuning.constants import SchedulerConstants
from bloodauto.tuning.settings import PriorTrial
from bloodauto.tuning.study import CandidateTrial, StudyRecord, TrialEnd, quiet_optuna
from bloodauto.tuning.suggestion import Suggester

SPACE = tiny_space()
INITIAL = tuple((f"paper {index}", tiny_recipe(SPACE, learning_rate=1e-3 * (index + 1))) for index in range(3))


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    with quiet_optuna():
        yield


def new_study() -> optuna.Study:
    return optuna.create_study(direction="maximize")


def suggester(
    study: optuna.Study, *, seed: int = 7, initial: tuple[tuple[str, Recipe], ...] = (), local: float = 0.5
) -> tuple[StudyRecord, Suggester]:
    record = StudyRecord(study, SPACE, Objectives())
    constants = SchedulerConstants(local_perturbation_fraction=local)
    return record, Suggester(record, SPACE, initial=initial, seed=seed, constants=constants)


def everything_fits(recipe: Recipe) -> bool:
    return True


def begin(source: Suggester) -> CandidateTrial | None:
    """The next initial configuration, or a suggestion."""
    pending = source.pending_initial
    return source.begin_initial(pending[0][0]) if pending else source.suggest(everything_fits)


def complete(record: StudyRecord, source: Suggester, objective: float) -> Recipe:
    candidate = begin(source)
    assert candidate is not None
    record.report(candidate.number, 1, objective)
    record.record_end(candidate.number, TrialEnd("complete", objective=objective, epochs_done=6))
    return candidate.recipe


def origins(study: optuna.Study) -> list[str]:
    return [TrialAttributes.read(trial).origin for trial in study.get_trials()]


def test_initial_configurations_come_in_order_and_only_once() -> None:
    study = new_study()
    record, source = suggester(study, initial=INITIAL)
    assert source.pending_initial == INITIAL
    assert [complete(record, source, 0.5) for _ in range(2)] == [INITIAL[0][1], INITIAL[1][1]]
    record, later = suggester(study, initial=INITIAL)
    assert complete(record, later, 0.5) == INITIAL[2][1]
    assert not later.pending_initial
    assert origins(study) == ["initial: paper 0", "initial: paper 1", "initial: paper 2"]


def test_all_suggestions_near_the_incumbent_when_the_fraction_is_one() -> None:
    study = new_study()
    record, source = suggester(study, initial=INITIAL[:1], local=1.0)
    complete(record, source, 0.9)
    for _ in range(5):
        complete(record, source, 0.1)
    assert origins(study)[1:] == ["perturbed from trial 0"] * 5


def test_before_any_trial_has_completed_nothing_is_perturbed() -> None:
    study = new_study()
    _, source = suggester(study, local=1.0)
    for _ in range(3):
        assert begin(source) is not None
    assert origins(study) == ["sampled"] * 3


def test_the_same_seed_suggests_the_same_after_a_resume_and_another_seed_does_not() -> None:
    def recipes(seed: int, sessions: int) -> list[str]:
        study = new_study()
        ids: list[str] = []
        for _ in range(sessions):
            record, source = suggester(study, seed=seed, initial=INITIAL[:1])
            for _ in range(12 // sessions):
                ids.append(complete(record, source, 0.01 * len(ids)).id)
        return ids

    assert recipes(7, 1) == recipes(7, 3)
    assert recipes(7, 1) != recipes(8, 1)


def test_open_trials_are_taken_up_before_anything_new() -> None:
    study = new_study()
    record, source = suggester(study)
    first = begin(source)
    assert first is not None
    record.report(first.number, 1, 0.5)
    _, later = suggester(study)
    candidate = later.next_open_trial()
    assert candidate is not None
    assert (candidate.number, candidate.recipe, candidate.epochs_done) == (first.number, first.recipe, 1)
    assert later.next_open_trial() is None


@pytest.mark.parametrize("local", [0.0, 1.0])
def test_suggestions_are_drawn_among_recipes_that_fit(local: float) -> None:
    """What does not fit leaves no trace in the study."""
    study = new_study()
    record, source = suggester(study, initial=INITIAL[:1], local=local)
    complete(record, source, 0.9)
    for _ in range(8):
        candidate = source.suggest(lambda recipe: recipe.backbone.width == 32)
        assert candidate is not None
        assert candidate.recipe.backbone.width == 32
        record.record_end(candidate.number, TrialEnd("complete", objective=0.1, epochs_done=6))
    trials = study.get_trials()
    assert [trial.params["backbone_width"] for trial in trials] == [16] + 8 * [32]
    assert {trial.state for trial in trials} == {optuna.trial.TrialState.COMPLETE}
    assert source.suggest(lambda recipe: False) is None
    assert len(study.get_trials()) == len(trials)


def test_trials_of_earlier_runs_shape_the_first_suggestions_and_then_fade() -> None:
    """Also misleading ones: their number halves with every few trials of this run."""
    prior = [PriorTrial(tiny_recipe(SPACE, 32, learning_rate=9e-3), 0.9 - 0.001 * index) for index in range(6)]
    prior += [PriorTrial(tiny_recipe(SPACE, 16, learning_rate=1e-3), 0.1) for _ in range(30)]
    study = new_study()
    record = StudyRecord(study, SPACE, Objectives())
    constants = SchedulerConstants(local_perturbation_fraction=0.0)
    source = Suggester(record, SPACE, initial=(), seed=3, prior=prior, constants=constants)
    widths = []
    for _ in range(36):
        candidate = source.suggest(everything_fits)
        assert candidate is not None
        widths.append(candidate.recipe.backbone.width)
        # Here the narrow network is the better one.
        objective = 0.8 if widths[-1] == 16 else 0.5
        record.record_end(candidate.number, TrialEnd("complete", objective=objective, epochs_done=6))
    assert widths[:6].count(32) >= 4
    assert widths[-12:].count(16) >= 8
