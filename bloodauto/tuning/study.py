"""The study on disk: the only reader and writer of a search's Optuna study."""

from __future__ import annotations

import contextlib
import math
import warnings
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Self

import optuna
from optuna.trial import TrialState

from bloodauto.config.objectives import Objectives
from bloodauto.config.recipe import Recipe
from bloodauto.config.space import SearchSpace, recipe_from_parameters, sample
from bloodauto.config.space.grammar import Scalar
from bloodauto.errors import RecipeError, RunError
from bloodauto.models.backbones import check_recipe
from bloodauto.run.artifacts import ParetoFront, ParetoTrial
from bloodauto.run.directory import RunDirectory
from bloodauto.run.study_attributes import (
    SAMPLED,
    Outcome,
    RefitPlanEntry,
    StudyAttributes,
    Timing,
    TrialAttributes,
)
from bloodauto.run.study_reader import mask_passwords, sqlite_url
from bloodauto.tuning.refits import CompletedTrial, PlannedRefit

_MAX_ERROR_CHARACTERS = 200
_LOCK_WAIT_SECONDS = 60
_RECENT_CURVES = 20
_NO_ATTRIBUTES = TrialAttributes()


@contextlib.contextmanager
def quiet_optuna() -> Iterator[None]:
    """Silences Optuna inside the block: its progress lines, and the warnings about features that it calls experimental.

    The sampler's grouping of conditional parameters is one; the search relies on it knowingly. Verbosity and warning filters
    are restored at the end.
    """
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", category=optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(verbosity)


def _open_storage(url: str) -> optuna.storages.BaseStorage:
    if url.startswith("sqlite:"):
        # Another program, such as a backup or a viewer, may hold the file's lock for a while.
        return optuna.storages.RDBStorage(url, engine_kwargs={"connect_args": {"timeout": _LOCK_WAIT_SECONDS}})
    return optuna.storages.get_storage(url)


@contextlib.contextmanager
def _explained(url: str) -> Iterator[None]:
    """Whatever a storage or its driver raises inside the block becomes an error that names the option."""
    try:
        yield
    except Exception as error:
        lines = str(error).splitlines()
        detail = lines[0][:_MAX_ERROR_CHARACTERS] if lines else type(error).__name__
        hint = ""
        if isinstance(error, ImportError):
            hint = " Its driver is missing; for PostgreSQL: pip install 'bloodauto[postgresql]'."
        message = f"--storage {url}: expected a storage of Optuna, the study could not be opened ({detail}).{hint}"
        # Not chained: neither the URL nor the driver's own message may carry a password to the screen.
        raise RunError(mask_passwords(message)) from None


def check_storage(url: str) -> None:
    """Checks that an Optuna storage can be opened, before anything is written to a run; Optuna may create its tables there.

    Args:
        url: An Optuna storage URL.

    Raises:
        RunError: It cannot be opened. The message hides a password in the URL.
    """
    with quiet_optuna(), _explained(url):
        _open_storage(url).get_all_studies()


def _open_study(url: str, name: str, objectives: Objectives) -> optuna.Study:
    with quiet_optuna(), _explained(url):
        study = optuna.create_study(
            storage=_open_storage(url), study_name=name, directions=objectives.directions, load_if_exists=True
        )
        # The dashboard's names of the axes.
        study.set_metric_names(list(objectives.names))
        return study


@dataclass(frozen=True)
class CandidateTrial:
    """A trial that may be trained now.

    Attributes:
        number: Its number.
        recipe: What it trains.
        epochs_done: Epochs that it has from an earlier session.
        is_initial: Whether it is an initial configuration.
        promoted_from: The trial whose weights it goes on with; None: it starts anew.
    """

    number: int
    recipe: Recipe
    epochs_done: int
    is_initial: bool
    promoted_from: int | None = None


@dataclass(frozen=True)
class TrialEnd:
    """How a trial ended, to be recorded.

    Attributes:
        outcome: ``complete``, ``pruned``, ``failed`` or ``out_of_budget``.
        reason: A short word; empty for a complete trial.
        objective: The primary objective on all validation images; None unless complete.
        secondary: The values of the other objectives.
        message: What a failed trial said.
        epochs_done: Its epochs.
        device_seconds: Devices reserved x seconds reserved.
    """

    outcome: Outcome
    reason: str = ""
    objective: float | None = None
    secondary: tuple[float, ...] = ()
    message: str = ""
    epochs_done: int = 0
    device_seconds: float = 0.0


class StudyRecord:
    """A search's study, with what decisions ask of it kept in memory.

    The study is read in full once, so that a decision costs no more with thousands of trials than with ten, apart from the
    sampler's own work.

    Args:
        study: The study; nobody else writes to it.
        space: The search space, which turns parameters into recipes.
        objectives: As many as the study has directions.

    Attributes:
        completed: The completed trials, in the order in which they completed.
        incumbent: The best of them; None before the first.
        num_trials: All trials.
        num_started: Trials that were ever trained.
        num_suggestions: Those that are neither initial configurations nor go on with another trial's weights.

    Raises:
        RunError: The attributes of a trial are not those of this version.
    """

    def __init__(self, study: optuna.Study, space: SearchSpace, objectives: Objectives) -> None:
        self._study, self._space, self._objectives = study, space, objectives
        self.is_multi_objective = len(objectives.names) > 1
        self.completed: list[CompletedTrial] = []
        self.incumbent: CompletedTrial | None = None
        self._attributes: dict[int, TrialAttributes] = {}
        self._recipes: dict[int, Recipe] = {}
        self._tried_recipe_ids: set[str] = set()
        self._curves: dict[int, dict[int, float]] = {}
        self._open_trials: dict[int, optuna.Trial] = {}
        self._unassigned: deque[optuna.trial.FrozenTrial] = deque()
        self._timings: dict[int, tuple[Recipe, Timing]] = {}
        trials = study.get_trials(deepcopy=False)
        self.num_trials = len(trials)
        self.num_suggestions = 0
        for trial in trials:
            self._load(trial)
        self.num_started = sum(attributes.started for attributes in self._attributes.values())

    @classmethod
    def open(cls, run: RunDirectory, space: SearchSpace, objectives: Objectives, *, storage: str | None = None) -> Self:
        """Creates or opens the study of a run; this process is its only writer.

        Args:
            run: The run directory.
            space: The search space.
            objectives: What is optimised.
            storage: An Optuna storage URL, which other runs may share; None: an SQLite file in the run directory.

        Raises:
            RunError: The storage cannot be opened, or the study was written by another version. The message hides a password
                in the URL.
        """
        url = storage if storage is not None else sqlite_url(run.study)
        name = run.study_name(storage)
        with quiet_optuna():
            return cls(_open_study(url, name, objectives), space, objectives)

    def _load(self, trial: optuna.trial.FrozenTrial) -> None:
        attributes = self._attributes[trial.number] = TrialAttributes.read(trial)
        self._tried_recipe_ids.add(attributes.recipe_id)
        if trial.state == TrialState.RUNNING:
            self._unassigned.append(trial)
        elif trial.state == TrialState.COMPLETE and trial.values is not None:
            objective, *secondary = trial.values
            recipe = recipe_from_parameters(self._space, trial.params)
            device_seconds = 0.0 if attributes.device_seconds is None else attributes.device_seconds
            seconds = self._seconds_with_parent(trial.number, device_seconds)
            self._add_completed(CompletedTrial(trial.number, recipe, objective, tuple(secondary), seconds))
        curve = dict(attributes.curve) if self.is_multi_objective else dict(trial.intermediate_values)
        if curve:
            self._curves[trial.number] = curve
        self.num_suggestions += attributes.started and self.is_suggestion(trial.number)
        if attributes.curve or attributes.timing is not None:
            self._recipes[trial.number] = recipe_from_parameters(self._space, trial.params)
        if attributes.timing is not None:
            self._timings[trial.number] = (self._recipes[trial.number], attributes.timing)

    def _add_completed(self, trial: CompletedTrial) -> None:
        self.completed.append(trial)
        best = self.incumbent
        if best is None or (trial.objective, -trial.number) > (best.objective, -best.number):
            self.incumbent = trial

    # -- trials --------------------------------------------------------------------------------------------------------

    @property
    def directions(self) -> list[Literal["maximize", "minimize"]]:
        """The direction of each objective, as Optuna names them."""
        return self._objectives.directions

    def timings(self) -> list[tuple[Recipe, Timing]]:
        """Recipe and timing of every trial that was timed, in the order of their numbers."""
        return [self._timings[number] for number in sorted(self._timings)]

    def pareto_front(self) -> list[CompletedTrial]:
        """The completed trials that no other dominates; with one objective, the incumbent."""
        if not self.is_multi_objective:
            return [] if self.incumbent is None else [self.incumbent]
        return self._objectives.pareto_front(self.completed, lambda trial: trial.values)

    def refit_eligible_trials(self) -> list[CompletedTrial]:
        """The completed trials that may be refitted; with several objectives, those on the Pareto front."""
        return self.pareto_front() if self.is_multi_objective else list(self.completed)

    def curves(self) -> Mapping[int, Mapping[int, float]]:
        """The primary objective by epoch of every trial that has an epoch, by number."""
        return self._curves

    def curve(self, number: int) -> Mapping[int, float]:
        """The primary objective of a trial by epoch.

        Args:
            number: The trial's number.
        """
        return self._curves.get(number, {})

    def recent_curves(self) -> list[Mapping[int, float]]:
        """The curves of the trials that completed last, at most twenty."""
        return [self.curve(trial.number) for trial in self.completed[-_RECENT_CURVES:]]

    def frozen_trials(self) -> list[optuna.trial.FrozenTrial]:
        """All trials as Optuna has them; not to be changed."""
        return self._study.get_trials(deepcopy=False)

    def parameters(self, number: int) -> Mapping[str, Scalar]:
        """The values of the space's domains of a trial, by parameter.

        Args:
            number: The trial's number.
        """
        return self._study.get_trials(deepcopy=False)[number].params

    def recipe(self, number: int) -> Recipe:
        """What a trial trains.

        Args:
            number: The trial's number.
        """
        if number not in self._recipes:
            self._recipes[number] = recipe_from_parameters(self._space, self.parameters(number))
        return self._recipes[number]

    def backbone(self, number: int) -> str:
        """Label of a trial's backbone.

        Args:
            number: The trial's number.
        """
        return self._attributes[number].backbone

    def is_initial(self, number: int) -> bool:
        """Whether a trial is an initial configuration.

        Args:
            number: The trial's number.
        """
        return self._attributes[number].is_initial

    def promoted(self) -> set[int]:
        """Numbers of the trials that others go on with."""
        numbers = (attributes.promoted_from for attributes in self._attributes.values())
        return {number for number in numbers if number is not None}

    def is_suggestion(self, number: int) -> bool:
        """Whether a trial is neither an initial configuration nor one that goes on with another's weights.

        Args:
            number: The trial's number.
        """
        attributes = self._attributes[number]
        return not attributes.is_initial and attributes.promoted_from is None

    def _seconds_with_parent(self, number: int, device_seconds: float) -> float:
        """Device-seconds of a trial, with those of the trial whose weights it went on with."""
        parent = self._attributes[number].promoted_from
        before = None if parent is None else self._attributes[parent].device_seconds
        return device_seconds + (0.0 if before is None else before)

    def was_tried(self, recipe: Recipe) -> bool:
        """Whether a trial had this recipe.

        Args:
            recipe: The recipe.
        """
        return recipe.id in self._tried_recipe_ids

    # -- new and open trials -------------------------------------------------------------------------------------------

    def enqueue(self, parameters: Mapping[str, Scalar], origin: str, *, repeat: bool = False) -> None:
        """Lets the next new trial have these parameters.

        A trial that a kill left in the queue is not put there again.

        Args:
            parameters: A value for each domain that is reached.
            origin: Where they come from, see ``TrialAttributes``.
            repeat: Whether another trial may have had the same parameters.
        """
        attributes = TrialAttributes(origin=origin).as_user_attrs()
        self._study.enqueue_trial(dict(parameters), user_attrs=attributes, skip_if_exists=not repeat)

    def ask(self, sampler: optuna.samplers.BaseSampler) -> CandidateTrial | None:
        """Creates a trial: the first of the queue, or a suggestion.

        Args:
            sampler: Suggests the parameters that are not in the queue.

        Returns:
            None when the suggestion was no valid recipe; it is recorded as failed then.
        """
        self._study.sampler = sampler
        trial = self._study.ask()
        self.num_trials = max(self.num_trials, trial.number + 1)
        self._open_trials[trial.number] = trial
        self._attributes[trial.number] = TrialAttributes.read(trial)
        return self._candidate(trial, epochs_done=0)

    @property
    def next_open_number(self) -> int | None:
        """Number of the next trial that an earlier session left open; None when there is none."""
        return self._unassigned[0].number if self._unassigned else None

    def reopen(self, sampler: optuna.samplers.BaseSampler) -> CandidateTrial | None:
        """The next trial that an earlier session left open.

        Args:
            sampler: Suggests parameters, should the trial have been left before it had all of them.

        Returns:
            None when it has no valid recipe; it is recorded as failed then.
        """
        self._study.sampler = sampler
        number = self._unassigned[0].number
        trial = self._open_left(number)
        self._unassigned.popleft()
        return self._candidate(trial, epochs_done=max(self.curve(number), default=0))

    @property
    def open_numbers(self) -> list[int]:
        """Numbers of the trials that an earlier session left open and nobody has reopened."""
        return [trial.number for trial in self._unassigned]

    def add_missing_epochs(self, number: int, objectives: Mapping[int, float]) -> None:
        """Records the epochs of a trial that an earlier session left open and that it was not told of.

        Args:
            number: The trial's number, one of ``open_numbers``.
            objectives: The primary objective by epoch, by the trial's own files.
        """
        known = max(self.curve(number), default=0)
        self._open_left(number)
        for epoch in sorted(epoch for epoch in objectives if epoch > known):
            self.report(number, epoch, objectives[epoch])
        del self._open_trials[number]

    def end_open_trial(self, number: int, end: TrialEnd) -> None:
        """Records the end of a trial that an earlier session left open.

        Args:
            number: The trial's number, one of ``open_numbers``.
            end: How it ended, by its own files.
        """
        self._open_left(number)
        self._unassigned = deque(trial for trial in self._unassigned if trial.number != number)
        self.record_end(number, end)

    def _open_left(self, number: int) -> optuna.Trial:
        """Opens a trial of an earlier session."""
        (frozen,) = (trial for trial in self._unassigned if trial.number == number)
        # The public constructor takes the storage's id of a trial, which only this attribute tells.
        trial = self._open_trials[number] = optuna.Trial(self._study, frozen._trial_id)
        return trial

    def _candidate(self, trial: optuna.Trial, *, epochs_done: int) -> CandidateTrial | None:
        if not self._attributes[trial.number].origin:
            self._write(trial.number, TrialAttributes(origin=SAMPLED))
        try:
            recipe = sample(self._space, trial)
            check_recipe(recipe)
        except RecipeError as error:
            self.record_end(trial.number, TrialEnd("failed", "rejected", message=str(error)))
            return None
        self._write(trial.number, TrialAttributes(recipe_id=recipe.id, backbone=recipe.backbone.label))
        self._recipes[trial.number] = recipe
        self._tried_recipe_ids.add(recipe.id)
        attributes = self._attributes[trial.number]
        return CandidateTrial(trial.number, recipe, epochs_done, attributes.is_initial, attributes.promoted_from)

    def _write(self, number: int, attributes: TrialAttributes) -> None:
        """Writes the attributes that are set, to the storage and to memory."""
        attributes.write(self._open_trials[number])
        changes = {name: getattr(attributes, name) for name in attributes.model_fields_set}
        self._attributes[number] = self._attributes.get(number, _NO_ATTRIBUTES).replace(**changes)

    def mark_started(self, number: int, *, given_seconds: float) -> None:
        """Records that a trial is being trained.

        Args:
            number: The trial's number.
            given_seconds: Wall seconds that it is given on its worker.
        """
        if not self._attributes[number].started:
            self._write(number, TrialAttributes(started=True, given_seconds=given_seconds))
            self.num_started += 1
            self.num_suggestions += self.is_suggestion(number)

    def report(self, number: int, epoch: int, value: float) -> None:
        """Records the primary objective after an epoch.

        Args:
            number: The trial's number.
            epoch: The epoch, from 1.
            value: The objective.
        """
        curve = self._curves.setdefault(number, {})
        curve[epoch] = value
        if self.is_multi_objective:
            # Optuna keeps no intermediate values for several objectives, and its sampler fails on them.
            self._write(number, TrialAttributes(curve=tuple(sorted(curve.items()))))
        else:
            self._open_trials[number].report(value, epoch)

    def set_pruner(self, pruner: optuna.pruners.BasePruner) -> None:
        """Sets the pruner that ``pruner_says_stop`` asks.

        Args:
            pruner: An Optuna pruner.
        """
        self._study.pruner = pruner

    def pruner_says_stop(self, number: int) -> bool:
        """Whether Optuna's pruner would stop a trial at its last epoch; for studies of one objective.

        Args:
            number: The trial's number.
        """
        return self._open_trials[number].should_prune()

    def save_timing(self, number: int, timing: Timing) -> None:
        """Records what a trial took.

        Args:
            number: The trial's number.
            timing: What it took.
        """
        self._write(number, TrialAttributes(timing=timing))
        self._timings[number] = (self.recipe(number), timing)

    def record_end(self, number: int, end: TrialEnd) -> TrialEnd:
        """Records how a trial ended.

        Args:
            number: The trial's number.
            end: How it ended.

        Returns:
            The end as recorded: a complete trial with a value that is not finite is a failure, ``nan``.
        """
        values = None if end.objective is None else [end.objective, *end.secondary]
        outcome, reason = end.outcome, end.reason
        if outcome == "complete" and (values is None or not all(map(math.isfinite, values))):
            outcome, reason = "failed", "nan"
        device_seconds = round(end.device_seconds, 3)
        self._write(number, TrialAttributes(outcome=outcome, reason=reason, device_seconds=device_seconds))
        if end.message:
            self._write(number, TrialAttributes(message=end.message))
        if outcome == "complete":
            assert values is not None
            self._study.tell(number, values)
            recipe = self.recipe(number)
            seconds = self._seconds_with_parent(number, device_seconds)
            self._add_completed(CompletedTrial(number, recipe, values[0], end.secondary, seconds))
        elif outcome == "failed" or end.epochs_done == 0:
            # Without any epoch there is nothing that a sampler could use.
            self._study.tell(number, state=TrialState.FAIL)
        else:
            self._study.tell(number, state=TrialState.PRUNED)
        del self._open_trials[number]
        return replace(end, outcome=outcome, reason=reason)

    # -- refits --------------------------------------------------------------------------------------------------------

    def pending_refits(self) -> list[PlannedRefit] | None:
        """The refits that an earlier session planned and that have not ended; None when none were planned."""
        attributes = StudyAttributes.read(self._study)
        if attributes.refit_plan is None:
            return None
        return [
            PlannedRefit(entry.name, entry.trial, self.recipe(entry.trial), entry.fold, entry.seed)
            for entry in attributes.refit_plan
            if entry.name not in attributes.ended_refits
        ]

    def save_refit_plan(self, planned: Sequence[PlannedRefit]) -> None:
        """Records which refits there will be.

        Args:
            planned: The refits, in their order.
        """
        entries = tuple(
            RefitPlanEntry(name=refit.name, trial=refit.trial, fold=refit.fold, seed=refit.seed) for refit in planned
        )
        StudyAttributes(refit_plan=entries).write(self._study)

    def record_refit_end(self, name: str, outcome: str) -> None:
        """Records how a refit ended.

        Args:
            name: The refit's name.
            outcome: A word: ``completed``, ``stopped`` or ``failed``.
        """
        ended = StudyAttributes.read(self._study).ended_refits
        StudyAttributes(ended_refits={**ended, name: outcome}).write(self._study)

    # -- the search as a whole -----------------------------------------------------------------------------------------

    @property
    def trainings_are_done(self) -> bool:
        """Whether nothing more is to be trained, so that an ensemble may be chosen."""
        return StudyAttributes.read(self._study).trainings_done

    def mark_trainings_done(self) -> None:
        """Records that nothing more is to be trained."""
        StudyAttributes(trainings_done=True).write(self._study)

    def attributes(self) -> dict[int, TrialAttributes]:
        """What is recorded of every trial, by number."""
        return dict(self._attributes)

    def pareto_front_artifact(self) -> ParetoFront:
        """The Pareto front as a file of the run, the best in the primary objective first."""
        trials = sorted(self.pareto_front(), key=lambda trial: (-trial.objective, trial.number))
        return ParetoFront(
            objectives=self._objectives.names,
            trials=tuple(
                ParetoTrial(
                    trial=trial.number,
                    backbone=trial.recipe.backbone.label,
                    recipe_id=trial.recipe.id,
                    values=dict(zip(self._objectives.names, trial.values, strict=True)),
                )
                for trial in trials
            ),
        )
