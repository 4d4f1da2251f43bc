"""The laws of a search, on simulated time: budget, trials, failures, resume."""

import tempfile
import time
from collections import Counter
from pathlib import Path

import optuna
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from optuna.trial import TrialState

from bloodauto.config.space import parameters_of
from bloodauto.run.artifacts import LedgerFile
from bloodauto.run.study_attributes import StudyAttributes
from bloodauto.testing.simulated_search import (
    SETTINGS,
    SimulatedSearch,
    generated_curves,
    small_budget_search,
    tiny_recipe,
    tiny_space,
)
from bloodauto.tuning.constants import BUDGET_CONSTANTS, SCHEDULER_CONSTANTS
from bloodauto.tuning.executors.simulated import Fault, SimulatedMachine, SimulatedSession
from bloodauto.tuning.messages import Completed
from bloodauto.tuning.study import StudyRecord, quiet_optuna


def trained(session: SimulatedSession, kind: str) -> list[str]:
    return [training.assignment.name for training in session.trainings if training.assignment.kind == kind]


def most_at_once(session: SimulatedSession) -> int:
    starts = [(training.started_at, 1) for training in session.trainings]
    changes = starts + [(training.ended_at, -1) for training in session.trainings]
    running = most = 0
    for _, change in sorted(changes):
        running += change
        most = max(most, running)
    return most


def check_states(search: SimulatedSearch) -> None:
    trials = search.study.get_trials(deepcopy=False)
    for trial, attributes in zip(trials, search.attributes(), strict=True):
        outcome, reason = attributes.outcome, attributes.reason
        if outcome == "complete":
            assert trial.state == TrialState.COMPLETE
        elif outcome == "pruned":
            assert trial.state == TrialState.PRUNED
            assert reason == f"rung_{max(trial.intermediate_values)}"
        elif outcome == "out_of_budget":
            assert trial.state == (TrialState.PRUNED if trial.intermediate_values else TrialState.FAIL)
            assert reason
        else:
            assert (outcome, trial.state) == ("failed", TrialState.FAIL)
            assert reason in {"crash", "abort", "watchdog", "worker_died", "rejected", "nan"}


# -- the budget ------------------------------------------------------------------------------------------------------


@settings(max_examples=6, phases=[Phase.generate], derandomize=True)
@given(
    wall_seconds=st.floats(180, 40 * 3600),
    cheap_trials_in_budget=st.floats(2, 12),
    workers=st.integers(1, 8),
    ratio=st.floats(1, 20),
    devices=st.sampled_from([0.5, 1.0, 4.0]),
    num_folds=st.integers(2, 5),
    seed=st.integers(0, 1000),
)
def test_spent_is_never_more_than_the_budget_and_nine_tenths_at_least(
    memory_folder: Path,
    wall_seconds: float,
    cheap_trials_in_budget: float,
    workers: int,
    ratio: float,
    devices: float,
    num_folds: int,
    seed: int,
) -> None:
    budget = wall_seconds * workers * devices
    epoch_seconds = wall_seconds / cheap_trials_in_budget / 6
    search = SimulatedSearch(
        Path(tempfile.mkdtemp(dir=memory_folder)),
        budget_device_seconds=budget,
        curve=generated_curves(
            {"own_cnn_4x16": epoch_seconds, "own_cnn_4x32": epoch_seconds * ratio}, seed=seed, noise=0.3
        ),
        machine=SimulatedMachine(tick_seconds=max(wall_seconds / 500, 2.0)),
    ).with_settings(
        workers=workers,
        devices_per_worker=devices,
        num_folds=num_folds,
        seed=seed,
        finalization_device_seconds=min(30.0 * devices, 0.06 * budget),
    )
    session = search.session()
    for_training = budget - search.settings.finalization_device_seconds
    spent = search.ledger.spent_device_seconds
    charges = LedgerFile(search.folder / "ledger.jsonl").device_seconds_by_phase()
    assert spent <= budget
    assert spent - charges.get("idle", 0.0) >= 0.9 * for_training
    assert spent == pytest.approx(sum(charges.values()), abs=0.01 * len(session.trainings) + 0.1)
    assert search.scheduler.incumbent() is not None
    assert TrialState.RUNNING not in {trial.state for trial in search.study.get_trials(deepcopy=False)}
    assert most_at_once(session) == workers
    assert trained(session, "refit")
    check_states(search)


@pytest.mark.parametrize("wall_seconds", [30.0, 45.0, 60.0, 90.0])
@pytest.mark.parametrize("workers", [1, 3])
def test_a_budget_too_small_for_any_recipe_still_gives_something_to_export(
    folder: Path, wall_seconds: float, workers: int
) -> None:
    space = tiny_space()
    search = SimulatedSearch(
        folder,
        budget_device_seconds=wall_seconds * workers,
        curve=generated_curves({"own_cnn_4x16": 60.0, "own_cnn_4x32": 200.0}),
        machine=SimulatedMachine(tick_seconds=1.0),
        initial=(("published", tiny_recipe(space, 32)),),
    ).with_settings(workers=workers, finalization_device_seconds=0.06 * wall_seconds * workers)
    search.session()
    assert search.study.get_trials(deepcopy=False)[0].state == TrialState.COMPLETE
    assert search.ledger.spent_device_seconds <= search.budget_device_seconds


def test_the_search_continues_when_refits_cannot_use_their_fraction(folder: Path) -> None:
    search = SimulatedSearch(
        folder, budget_device_seconds=4000.0, curve=generated_curves({"own_cnn_4x16": 0.2, "own_cnn_4x32": 0.3})
    )
    search.with_settings(refit_fraction=0.9, max_trials=25)
    session = search.session()
    refits = trained(session, "refit")
    assert search.scheduler.limits.search > 0.8 * 4000
    assert len(refits) in {5, 10}


def test_two_slots_end_their_last_refits_together(folder: Path) -> None:
    search = SimulatedSearch(folder, budget_device_seconds=2400.0, curve=generated_curves(noise=0.1))
    session = search.session()
    refits = [training for training in session.trainings if training.assignment.kind == "refit"]
    last = {refit.assignment.slot: refit.ended_at for refit in refits}
    assert len(last) == 2
    assert max(last.values()) - min(last.values()) < 0.01 * 1200


def test_a_refit_whose_worker_died_ends_with_the_others(folder: Path, tmp_path: Path) -> None:
    """The time that it lost is not added: it would still train when the budget is spent."""
    undisturbed = SimulatedSearch(tmp_path, budget_device_seconds=2400.0).session()
    refit = [training for training in undisturbed.trainings if training.assignment.kind == "refit"][-1]
    fault = Fault(refit.assignment.name, refit.epochs // 2, "dies")
    search = SimulatedSearch(folder, budget_device_seconds=2400.0, machine=SimulatedMachine(faults=(fault,)))
    session = search.session()
    disturbed = next(training for training in session.trainings if training.assignment.name == refit.assignment.name)
    assert isinstance(disturbed.end, Completed)
    assert abs(disturbed.ended_at - refit.ended_at) < 0.02 * 1200
    assert search.ledger.spent_device_seconds <= 2400.0


@pytest.mark.parametrize("warm_start_seconds", [0.5, 10.0])
def test_refits_with_an_unexpected_start_time_use_their_fraction(folder: Path, warm_start_seconds: float) -> None:
    search = SimulatedSearch(
        folder, budget_device_seconds=2400.0, machine=SimulatedMachine(warm_start_seconds=warm_start_seconds)
    ).with_settings(workers=2, finalization_device_seconds=40.0)
    search.session()
    assert 0.97 * 2360 < search.ledger.spent_device_seconds <= 2400


# -- trials ----------------------------------------------------------------------------------------------------------


def test_initial_configurations_come_first_and_in_order(folder: Path) -> None:
    space = tiny_space()
    recipes = [tiny_recipe(space, learning_rate=rate) for rate in (2e-3, 5e-3, 3e-3)]
    initial = tuple((f"paper {index}", recipe) for index, recipe in enumerate(recipes))
    search = SimulatedSearch(folder, initial=initial, budget_device_seconds=2400.0)
    search.session()
    trials = search.attributes()
    assert [trial.recipe_id for trial in trials[:3]] == [recipe.id for recipe in recipes]
    assert {trial.backbone for trial in trials} == {"own_cnn_4x16", "own_cnn_4x32"}
    assert [trial.origin for trial in trials[:3]] == ["initial: paper 0", "initial: paper 1", "initial: paper 2"]
    suggestions = [trial for trial in trials[3:] if trial.parent is None and trial.promoted_from is None]
    assert {trial.origin for trial in suggestions} == {"sampled"}


def test_local_perturbations_make_up_their_fraction(folder: Path) -> None:
    search = SimulatedSearch(folder, initial=(("paper", tiny_recipe(tiny_space())),), budget_device_seconds=5_000.0)
    search.session()
    trials, attributes = search.study.get_trials(deepcopy=False), search.attributes()
    perturbed = [trial for trial in trials if attributes[trial.number].parent is not None]
    suggestions = [entry for entry in attributes if not entry.is_initial and entry.promoted_from is None]
    assert 0.35 < len(perturbed) / len(suggestions) < 0.65
    changed_fractions = []
    for trial in perturbed:
        number = attributes[trial.number].parent
        assert number is not None
        parent = trials[number]
        # Only a completed trial can be a parent, and it was the incumbent when the suggestion was made.
        assert attributes[number].outcome == "complete"
        assert parent.number < trial.number
        changed = [name for name, value in trial.params.items() if parent.params.get(name) != value]
        assert changed
        changed_fractions.append(len(changed) / len(trial.params))
    assert sum(changed_fractions) / len(changed_fractions) < 0.5


def test_the_local_perturbation_fraction_may_be_zero(folder: Path) -> None:
    constants = SCHEDULER_CONSTANTS.replace(local_perturbation_fraction=0.0)
    search = SimulatedSearch(folder, initial=(("paper", tiny_recipe(tiny_space())),), constants=constants)
    search.session()
    assert {trial.origin for trial in search.attributes()[1:] if trial.promoted_from is None} == {"sampled"}


def test_every_way_a_trial_can_end(folder: Path) -> None:
    faults = (
        Fault("00001", 1, "crash"),
        Fault("00002", 1, "dies", times=1),
        Fault("00003", 1, "dies", times=9),
        Fault("00004", 1, "hangs", times=9),
        Fault("00005", 1, "hangs", times=1),
    )
    search = SimulatedSearch(
        folder,
        budget_device_seconds=16_000.0,
        machine=SimulatedMachine(faults=faults),
        budget_constants=BUDGET_CONSTANTS.replace(min_heartbeat_timeout_seconds=60.0),
    ).with_settings(max_trials=30)
    session = search.session()
    reasons = [(trial.outcome, trial.reason) for trial in search.attributes()]
    assert reasons[1] == ("failed", "crash")
    assert reasons[2][0] in {"complete", "pruned"}
    assert reasons[3] == ("failed", "worker_died")
    assert reasons[4] == ("failed", "watchdog")
    assert reasons[5][0] in {"complete", "pruned"}
    assert {"complete", "pruned", "failed"} <= set(search.outcomes())
    check_states(search)
    hanging = next(training for training in session.trainings if training.assignment.name == "00004")
    # Killed and restarted twice; each silence is noticed in bounded time, though nobody may have timed its network.
    assert hanging.ended_at - hanging.started_at < 3 * (600 + 12 + 10) + 100


def test_a_healthy_training_may_take_all_the_time_for_one_epoch(folder: Path) -> None:
    """It does not hang: between its batches it gives heartbeats."""
    seconds = {"own_cnn_4x16": 5_000.0, "own_cnn_4x32": 5_000.0}
    search = SimulatedSearch(
        folder,
        budget_device_seconds=8_000.0,
        curve=generated_curves(seconds),
        budget_constants=BUDGET_CONSTANTS.replace(min_heartbeat_timeout_seconds=60.0),
    )
    search.session()
    assert "failed" not in search.outcomes()
    incumbent = search.scheduler.incumbent()
    assert incumbent is not None
    assert search.ledger.spent_device_seconds >= 0.9 * (8_000.0 - SETTINGS.finalization_device_seconds)


def test_a_failure_all_would_have_ends_the_search(folder: Path) -> None:
    search = SimulatedSearch(folder, machine=SimulatedMachine(faults=(Fault("00002", 1, "abort"),)))
    session = search.session()
    assert search.scheduler.abort_reason == "simulated"
    assert len(session.trainings) <= 4
    assert TrialState.RUNNING not in {trial.state for trial in search.study.get_trials(deepcopy=False)}


@pytest.mark.parametrize(("num_faults", "ends"), [(4, False), (9, True)])
def test_five_equal_failures_before_any_epoch_end_the_search(folder: Path, num_faults: int, ends: bool) -> None:
    faults = tuple(Fault(f"{number:05d}", 1, "crash") for number in range(num_faults))
    search = SimulatedSearch(folder, machine=SimulatedMachine(faults=faults))
    session = search.session()
    if ends:
        assert search.scheduler.abort_reason == "the first 5 trainings failed for one reason, crash: simulated"
        assert len(session.trainings) <= 5 + SETTINGS.workers
    else:
        assert search.scheduler.abort_reason is None
        assert "complete" in search.outcomes()


def test_a_slow_unmeasured_backbone_is_not_taken_for_hanging(folder: Path) -> None:
    space = tiny_space()
    search = SimulatedSearch(
        folder,
        budget_device_seconds=8 * 3600.0,
        curve=generated_curves({"own_cnn_4x16": 20.0, "own_cnn_4x32": 600.0}),
        initial=(("fast", tiny_recipe(space, 16)), ("slow", tiny_recipe(space, 32))),
    ).with_settings(max_trials=4)
    search.session()
    assert "failed" not in search.outcomes()


def test_only_completed_trials_have_a_value(folder: Path) -> None:
    search = SimulatedSearch(folder, budget_device_seconds=2000.0)
    session = search.session()
    trainings = {training.assignment.name: training for training in session.trainings}
    for trial in search.study.get_trials(deepcopy=False):
        if trial.state == TrialState.COMPLETE:
            training = trainings[f"{trial.number:05d}"]
            assert isinstance(training.end, Completed)
            assert trial.value == training.end.objective
            assert training.epochs == 6 or training.assignment.limits.training_seconds is not None


def test_requests_without_budget_are_cheap_and_leave_no_trials(folder: Path) -> None:
    search = SimulatedSearch(folder, curve=generated_curves({"own_cnn_4x16": 10.0, "own_cnn_4x32": 10.0}))
    search.session()
    scheduler, before = search.scheduler, len(search.study.get_trials(deepcopy=False))
    search.ledger.reserve("worker 0", 1.0, "idle")
    started = time.perf_counter()
    assert all(scheduler.next_assignment("worker 0") is None for _ in range(1000))
    assert time.perf_counter() - started < 1.0
    search.ledger.release("worker 0")
    assert len(search.study.get_trials(deepcopy=False)) == before
    assert search.outcomes().count("out_of_budget") <= 16 + 2 * SETTINGS.workers


# -- the same again --------------------------------------------------------------------------------------------------


def parameters(search: SimulatedSearch) -> list[dict[str, object]]:
    trials = zip(search.study.get_trials(deepcopy=False), search.attributes(), strict=True)
    return [trial.params for trial, attributes in trials if attributes.started]


def test_the_same_seed_suggests_the_same(folder: Path, tmp_path: Path) -> None:
    first, second = (SimulatedSearch(root, budget_device_seconds=400.0) for root in (folder, tmp_path))
    assert first.session() == second.session()
    assert parameters(first) == parameters(second)
    other = SimulatedSearch(Path(tempfile.mkdtemp(dir=tmp_path)), budget_device_seconds=400.0).with_settings(seed=8)
    other.session()
    assert parameters(other) != parameters(first)


def planned_refits(search: SimulatedSearch) -> dict[str, int]:
    """The fold of each planned refit, by name."""
    plan = StudyAttributes.read(search.study).refit_plan
    return {} if plan is None else {refit.name: refit.fold for refit in plan}


@pytest.mark.parametrize("storage", ["memory", "sqlite"])
def test_a_resumed_search_suggests_the_same(folder: Path, tmp_path: Path, storage: str) -> None:
    url = f"sqlite:///{folder / 'study.db'}" if storage == "sqlite" else None
    uninterrupted = SimulatedSearch(tmp_path, budget_device_seconds=2500.0).with_settings(workers=1, max_trials=9)
    uninterrupted.session()
    interrupted = SimulatedSearch(folder, budget_device_seconds=2500.0, storage=url).with_settings(
        workers=1, max_trials=9
    )
    assert interrupted.session(stop_at=100.0).interrupted
    assert interrupted.session(stop_at=321.0, kill=True).interrupted
    interrupted.session()
    assert parameters(interrupted) == parameters(uninterrupted)


@settings(max_examples=6, phases=[Phase.generate], derandomize=True)
@given(st.lists(st.tuples(st.floats(5, 400), st.booleans()), min_size=1, max_size=4), st.integers(1, 3))
def test_after_interruptions_nothing_is_lost_or_repeated(
    memory_folder: Path, interruptions: list[tuple[float, bool]], workers: int
) -> None:
    search = SimulatedSearch(
        Path(tempfile.mkdtemp(dir=memory_folder)),
        budget_device_seconds=700.0 * workers,
        curve=generated_curves(noise=0.2),
    ).with_settings(workers=workers)
    sessions: list[SimulatedSession] = []
    for seconds, kill in interruptions:
        sessions.append(search.session(stop_at=search.clock.now() + seconds, kill=kill))
        if not sessions[-1].interrupted:
            break
        search.clock.advance(86_400.0)
    if sessions[-1].interrupted:
        sessions.append(search.session())
    trainings = [training for session in sessions for training in session.trainings]
    ends = Counter(training.assignment.name for training in trainings if training.end is not None)
    assert set(ends.values()) <= {1}
    epochs_done: Counter[str] = Counter()
    for training in trainings:
        assert training.first_epoch == epochs_done[training.assignment.name] + 1
        epochs_done[training.assignment.name] += training.epochs
    for trial in search.study.get_trials(deepcopy=False):
        assert sorted(trial.intermediate_values) == list(range(1, epochs_done[f"{trial.number:05d}"] + 1))
    refits = {training.assignment.name for training in trainings if training.assignment.kind == "refit"}
    assert refits <= set(planned_refits(search))
    assert TrialState.RUNNING not in {trial.state for trial in search.study.get_trials(deepcopy=False)}
    assert search.ledger.spent_device_seconds <= search.budget_device_seconds
    check_states(search)


def test_a_plan_of_refits_survives_a_resume(folder: Path) -> None:
    search = SimulatedSearch(folder, budget_device_seconds=2400.0)
    first = search.session(stop_at=1000.0)
    assert trained(first, "refit")
    plan = planned_refits(search)
    second = search.session()
    assert planned_refits(search) == plan
    ended = {
        training.assignment.name
        for training in first.trainings
        if training.assignment.kind == "refit" and training.end is not None
    }
    assert ended.isdisjoint(trained(second, "refit"))
    assert ended | set(trained(second, "refit")) == set(plan)
    folds = set(plan.values())
    assert folds in ({0}, set(range(5))), "either whole sets of folds, or seeds of fold 0"


# -- size ------------------------------------------------------------------------------------------------------------


def test_decisions_stay_cheap_with_thousands_of_trials(folder: Path) -> None:
    search = SimulatedSearch(
        folder, budget_device_seconds=1e5, curve=generated_curves({"own_cnn_4x16": 1.0, "own_cnn_4x32": 2.0})
    )
    space = tiny_space()
    study = search.study
    sampled = parameters_of(space, tiny_recipe(space))
    distributions: dict[str, optuna.distributions.BaseDistribution] = {
        name: optuna.distributions.CategoricalDistribution((value,)) for name, value in sampled.items()
    }
    for number in range(2000):
        study.add_trial(optuna.trial.create_trial(value=number / 1e5, params=sampled, distributions=distributions))
    account = search.open_account()
    scheduler = search.make_scheduler(account.ledger)
    account.reserve_workers(1)
    with quiet_optuna():
        assert scheduler.next_assignment("worker 0") is not None
    started = time.perf_counter()
    for _ in range(200):
        scheduler.incumbent()
        scheduler.overdue()
        scheduler.is_past_training_limit()
        assert scheduler.limits.search > 0
    assert time.perf_counter() - started < 0.5
    account.close()


def test_a_resume_without_time_for_a_training_starts_no_worker(folder: Path) -> None:
    search = SimulatedSearch(folder)
    scheduler = search.make_scheduler(search.open_account().ledger)
    assert not scheduler.is_budget_exhausted, "before any trial has completed there is nothing to export"
    search.session()
    assert search.make_scheduler(search.open_account().ledger).is_budget_exhausted


def test_the_best_short_suggestions_go_on_with_their_weights(folder: Path) -> None:
    search = small_budget_search(folder, seed=0)
    session = search.session()
    attributes = search.attributes()
    promoted = {
        number: entry.promoted_from for number, entry in enumerate(attributes) if entry.promoted_from is not None
    }
    assert promoted
    assert len(set(promoted.values())) == len(promoted), "each goes on once"
    suggestions = [entry for entry in attributes if not entry.is_initial and entry.promoted_from is None]
    # Who is among the best changes as trials are added, so some more than that fraction go on, as in ASHA.
    assert len(promoted) <= 1.5 * len(suggestions) / SCHEDULER_CONSTANTS.promotion_factor
    trainings = {training.assignment.name: training for training in session.trainings}
    for number, parent in promoted.items():
        assert parent is not None
        assert trainings[f"{number:05d}"].assignment.weights_from_trial == parent
        assert attributes[number].recipe_id == attributes[parent].recipe_id
        before, after = (search.study.trials[trial].value for trial in (parent, number))
        assert before is not None
        assert after is not None
        assert after > before


def test_a_budget_for_a_few_suggestions_goes_to_initial_configurations_and_refits(folder: Path) -> None:
    """An epoch takes 12 s or more, so that ten device-minutes have no time for the least number of suggestions."""
    search = small_budget_search(folder, seed=0, budget_device_seconds=600.0).with_settings(training_images=9_000)
    session = search.session()
    assert all(attributes.is_initial for attributes in search.attributes())
    assert search.ledger.spent_device_seconds > 0.9 * (600.0 - search.settings.finalization_device_seconds)
    trial_seconds, refit_seconds = (
        sum(
            training.ended_at - training.started_at
            for training in session.trainings
            if training.assignment.kind == kind
        )
        for kind in ("trial", "refit")
    )
    assert trial_seconds > 0.3 * (trial_seconds + refit_seconds)


def test_a_worker_without_an_initial_configuration_is_not_idle_until_there_is_something_to_refit(folder: Path) -> None:
    search = small_budget_search(folder, seed=0, budget_device_seconds=330.0).with_settings(training_images=9_000)
    search.initial = search.initial[:1]
    session = search.session()
    origins = [attributes.is_initial for attributes in search.attributes()]
    assert origins[0]
    assert len(origins) - 1 < SCHEDULER_CONSTANTS.min_suggestions
    first, second = sorted(session.trainings, key=lambda training: training.started_at)[:2]
    assert (first.assignment.kind, second.assignment.kind) == ("trial", "trial")
    assert second.started_at < first.ended_at


@pytest.mark.parametrize(("training_images", "min_steps"), [(9_000, 128), (1_000, 32)])
def test_a_suggestion_trains_for_a_least_number_of_steps_or_an_epoch(
    folder: Path, training_images: int, min_steps: int
) -> None:
    search = small_budget_search(folder, seed=0).with_settings(training_images=training_images)
    session = search.session()
    attributes = search.attributes()
    suggestions = [
        training
        for training in session.trainings
        if training.assignment.kind == "trial" and not attributes[int(training.assignment.name)].is_initial
    ]
    assert len(suggestions) >= SCHEDULER_CONSTANTS.min_suggestions
    for training in suggestions:
        recipe = training.assignment.recipe
        epoch_seconds = 12.0 if recipe.backbone.width == 16 else 40.0
        assert training.assignment.limits.training_seconds is not None
        epochs = training.assignment.limits.training_seconds / epoch_seconds
        # Times vary by 15 %, and what an epoch takes is estimated.
        assert epochs * training_images / recipe.batch_size > 0.7 * min_steps


def test_a_longer_trial_counts_with_what_it_had_in_the_time_of_shorter_ones(folder: Path) -> None:
    search = small_budget_search(folder, seed=0)
    search.session()
    record = StudyRecord(search.study, search.space, search.settings.objectives)
    longest = max(record.completed, key=lambda trial: trial.device_seconds)
    curve = record.curve(longest.number)
    planner = search.scheduler._planner
    assert max(curve) > 1
    assert planner.comparable_objective(longest, 1.0) == min(curve[1], longest.objective)
    assert planner.comparable_objective(longest, longest.device_seconds) == longest.objective
