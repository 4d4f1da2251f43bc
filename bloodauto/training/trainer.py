"""Trains one recipe: stages, schedules, epoch reports, checkpoints, a clean stop and a clean resume."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import keras
import numpy as np
from numpy.typing import NDArray

from bloodauto.clock import SYSTEM_CLOCK, Clock
from bloodauto.config.recipe import Recipe
from bloodauto.errors import TrialRejected
from bloodauto.evaluation.evaluator import Evaluator
from bloodauto.evaluation.fold_data import FoldData
from bloodauto.models.backbones import check_recipe
from bloodauto.models.device import Device
from bloodauto.run.artifacts import AveragedEpochs, Checkpoint, EpochReport, NetworkWeights, Objective, TrainingHistory
from bloodauto.run.files import write_text
from bloodauto.run.training_directory import TrainingDirectory
from bloodauto.training.augmentation import check_augmentation
from bloodauto.training.averaging import WeightAverage, may_gain_from_averaging
from bloodauto.training.distillation import Batches, DistillationBatches, Teacher
from bloodauto.training.epoch import EpochPosition, StageControl, TrainingProgress, first_images, fit_epoch
from bloodauto.training.epoch_history import (
    is_best,
    keeps_last,
    kept_report,
    patience_exhausted,
    plateau_factor,
    stage_metric,
)
from bloodauto.training.imbalance import TrainingSet, training_set
from bloodauto.training.input_pipeline import num_augmentation_processes, stage_pipeline
from bloodauto.training.kept_networks import Architecture, KeptNetworks, TrainableNetwork, TrainingStep
from bloodauto.training.limits import TimeLimits, stage_ends
from bloodauto.training.losses import check_loss
from bloodauto.training.result import TrialResult, objective_of

#: Values of the variables of a network or an optimizer.
Weights: TypeAlias = list[NDArray[Any]]

_MIN_SECONDS = 1e-9
#: Within an epoch the state is saved this often, or less often where a save takes more than this fraction of the time.
SAVE_INTERVAL_SECONDS = 20.0
SAVE_TIME_FRACTION = 1e-3


@dataclass(frozen=True)
class TrainOptions:
    """How a recipe is trained, beside what it says itself.

    Attributes:
        objective: The score that decides which epoch is kept and when patience is exhausted.
        weights_file: Pre-trained weights of the backbone; None: random weights.
        start_weights: Weights of the whole network to start from, of a training of the same network; None: none.
        device: Cores, compilation and precision. A ``TrainingSession`` sets its own.
        limits: Until when the training may run, on the training's clock.
        average_last_epochs: Whether the average of the last epochs' weights is kept where it is better than the best epoch, in
            stages that may gain from it (``may_gain_from_averaging``). A search does so; a training by itself follows its
            recipe.
        num_micro_batches: In how many parts a step takes its batch, to save memory; see ``MicroBatchModel``.
        teacher: Gives the targets instead of the labels; see ``DistillationBatches``. None: the labels.
    """

    objective: Objective = "shift"
    weights_file: Path | None = None
    start_weights: Path | None = None
    device: Device = field(default_factory=Device)
    limits: TimeLimits = field(default_factory=TimeLimits)
    average_last_epochs: bool = False
    num_micro_batches: int = 1
    teacher: Teacher | None = None


def never() -> bool:
    """The ``should_stop`` of a training that nobody stops."""
    return False


def ignore(report: EpochReport) -> None:
    """The ``report`` of a training whose epochs nobody follows."""


class _Training:
    """One training in progress.

    A stage has at most one weight average. ``_step_average`` is the recipe's: it follows every step, and every epoch is
    evaluated and kept with it. ``_epoch_average`` is the search's: it follows the epochs of the last stage's last quarter,
    and is evaluated once at the end. The checkpoint has one slot for whichever the stage has.
    """

    def __init__(
        self,
        recipe: Recipe,
        fold_data: FoldData,
        *,
        folder: Path,
        seed: int,
        options: TrainOptions,
        should_stop: Callable[[], bool],
        clock: Clock,
        networks: KeptNetworks,
    ) -> None:
        check_recipe(recipe)
        check_loss(recipe.loss, fold_data.num_classes)
        check_augmentation(recipe)
        self._recipe, self._fold_data, self._seed = recipe, fold_data, seed
        self._options, self._files, self._clock = options, TrainingDirectory(folder), clock
        self._networks = networks
        self._should_stop = lambda: should_stop() or options.limits.is_past_deadline(clock.now())
        self._evaluator = Evaluator(fold_data, clock)
        self._history: list[EpochReport] = []
        self._stage = 0
        self._stage_best: Weights = []
        self._complete = False
        self._compiled_stage = -1
        self._position = EpochPosition()
        self._saved_at, self._save_seconds = clock.now(), 0.0
        self._trainable: TrainableNetwork
        self._network: keras.Model
        self._step: TrainingStep
        self._step_average: WeightAverage | None = None
        self._epoch_average: WeightAverage | None = None

    def epochs(self) -> Generator[EpochReport, None, TrialResult]:
        """Trains; yields after every epoch, when its checkpoint is written."""
        architecture = Architecture(
            self._recipe,
            num_classes=self._fold_data.num_classes,
            image_shape_px=self._fold_data.image_shape_px,
            weights_file=self._options.weights_file,
            settings=self._options.device.settings,
        )
        with self._networks.borrow(architecture) as trainable:
            self._trainable, self._network = trainable, trainable.network
            return (yield from self._train())

    def _train(self) -> Generator[EpochReport, None, TrialResult]:
        self._trainable.begin_training(self._recipe.head, self._seed, self._options.start_weights)
        saved = self._restore()
        write_text(self._files.recipe, self._recipe.to_yaml())
        if self._complete:
            self._step = self._trainable.begin_stage(self._recipe.stages[-1], self._recipe.loss)
            self._start_averages(saved)
            return self._finish()
        # They are of an earlier session's weights.
        self._files.result.delete()
        self._files.predictions.delete()
        train_set = self._training_set()
        while not self._complete:
            if self._compiled_stage != self._stage:
                self._begin_stage(train_set, saved if self._compiled_stage < 0 else None)
            outcome = self._epoch()
            if outcome is None:
                break
            report, weights = outcome
            self._end_epoch(report, weights)
            yield report
        return self._finish()

    def _restore(self) -> Checkpoint | None:
        """Continues from the checkpoint if there is one, and starts the clock."""
        saved = self._files.checkpoint.read_if_exists()
        if saved is not None:
            self._network.set_weights(saved.weights)
            self._history, self._stage_best = list(saved.history), list(saved.stage_best)
            self._stage, self._complete = saved.stage, saved.complete
        self._position = EpochPosition.of_checkpoint(saved)
        self._saved_at = self._clock.now()
        self._steps_per_epoch = max(len(self._fold_data.train_index) // self._recipe.batch_size, 1)
        self._progress = TrainingProgress(
            self._steps_per_epoch * self._recipe.total_epochs,
            stage_ends(self._recipe),
            training_seconds=self._options.limits.training_seconds_from(self._clock.now()),
            done=0.0 if saved is None else saved.progress,
            seconds=0.0 if saved is None else saved.seconds,
            clock=self._clock,
        )
        return saved

    def _training_set(self) -> TrainingSet:
        data = self._fold_data
        return training_set(
            data.train_images, data.train_labels, data.num_classes, self._recipe.imbalance, seed=self._seed
        )

    def _begin_stage(self, train_set: TrainingSet, saved: Checkpoint | None) -> None:
        """Unfreezes and prepares the batches; ``saved``: a checkpoint within the stage, or at its start."""
        self._step = self._trainable.begin_stage(
            self._recipe.stages[self._stage],
            self._recipe.loss,
            num_micro_batches=self._options.num_micro_batches,
        )
        if saved is not None and saved.optimizer:
            for variable, value in zip(self._step.optimizer_state, saved.optimizer, strict=True):
                variable.assign(value)
        self._start_averages(saved)
        self._pipeline = self._stage_pipeline(train_set)
        self._compiled_stage = self._stage

    def _start_averages(self, saved: Checkpoint | None) -> None:
        stage = min(self._stage, len(self._recipe.stages) - 1)
        settings = self._recipe.stages[stage]
        averages, steps = ((), 0) if saved is None else (saved.averages, saved.average_steps)
        self._step_average = self._epoch_average = None
        if settings.weight_averaging != "none" and not self._complete:
            self._step_average = self._step.average(settings.weight_averaging, averages=averages, steps=steps)
        is_last = stage + 1 == len(self._recipe.stages)
        if self._options.average_last_epochs and is_last and may_gain_from_averaging(settings):
            self._epoch_average = self._step.average("swa", averages=averages, steps=steps)

    def _stage_pipeline(self, train_set: TrainingSet) -> Batches:
        device = self._options.device
        pipeline = stage_pipeline(
            self._recipe,
            min(self._stage, len(self._recipe.stages) - 1),
            train_set,
            images_per_epoch=len(self._fold_data.train_index),
            seed=self._seed,
            num_threads=1,
            num_processes=num_augmentation_processes(device.cores, on_gpu=device.on_gpu),
        )
        return pipeline if self._options.teacher is None else DistillationBatches(pipeline, self._options.teacher)

    def _epoch(self) -> tuple[EpochReport, Weights] | None:
        """Trains and evaluates; returns the report and the weights that were evaluated, None when a stop was requested."""
        started = self._clock.now()
        settings, epoch = self._recipe.stages[self._stage], len(self._history) + 1
        is_plateau = settings.schedule.name == "plateau"
        control = StageControl(
            settings,
            self._stage,
            progress=self._progress,
            average=self._step_average,
            rate_factor=(
                plateau_factor(settings.schedule, settings.epochs, self._stage_history) if is_plateau else 1.0
            ),
            should_stop=self._should_stop,
            start=self._position,
            after_step=self._save_if_due,
        )
        waited_before = self._pipeline.wait_seconds
        train_loss, train_accuracy = fit_epoch(self._step.model, self._pipeline, control, epoch)
        trained = self._clock.now()
        if control.stop_requested:
            self._write_checkpoint(self._position_after(self._position.steps + control.steps))
            return None
        self._position = EpochPosition()
        if not math.isfinite(train_loss):
            raise TrialRejected(
                "nan", f"the loss is {train_loss} after epoch {epoch}; a smaller learning rate may help"
            )
        waited = self._pipeline.wait_seconds - waited_before
        with self._averaged_weights(self._step_average, epoch):
            evaluation = self._evaluator.evaluate_subset(self._network)
            weights = self._network.get_weights()
        ended = self._clock.now()
        report = EpochReport(
            epoch=epoch,
            stage=self._stage,
            seconds=ended - started,
            evaluation_seconds=ended - trained,
            train_loss=train_loss,
            train_accuracy=train_accuracy,
            learning_rate=float(self._step.optimizer.learning_rate.numpy()),
            loss=evaluation.clean.loss,
            accuracy=evaluation.clean.accuracy,
            balanced_accuracy=evaluation.clean.balanced_accuracy,
            macro_f1=evaluation.clean.macro_f1,
            shift=evaluation.score,
            objective=objective_of(evaluation, self._options.objective),
            data_wait_fraction=waited / max(trained - started, _MIN_SECONDS),
            stage_progress=min(self._progress.stage_fraction(self._stage), 1.0),
            epoch_fraction=min(max(control.steps, 1) / self._steps_per_epoch, 1.0),
            is_resumed=control.start.steps > 0,
        )
        return report, weights

    @property
    def _stage_history(self) -> list[EpochReport]:
        """The epochs of the present stage."""
        return [report for report in self._history if report.stage == self._stage]

    def _averaged_weights(self, average: WeightAverage | None, epoch: int) -> contextlib.AbstractContextManager[None]:
        if average is None:
            return contextlib.nullcontext()
        return average.applied(lambda: first_images(self._pipeline, epoch))

    def _end_epoch(self, report: EpochReport, weights: Weights) -> None:
        """Keeps what the epoch is good for, ends the stage if it is over, and writes the checkpoint."""
        self._history.append(report)
        settings = self._recipe.stages[self._stage]
        is_last_stage = self._stage + 1 == len(self._recipe.stages)
        if self._epoch_average is not None:
            self._epoch_average.add_step(report.stage_progress)
        if keeps_last(self._history, self._recipe.stages):
            self._files.weights.write(NetworkWeights(weights=tuple(weights)))
        if settings.restore_best and not is_last_stage and is_best(self._stage_history, stage_metric(settings)):
            self._stage_best = weights
        if self._progress.stage_fraction(self._stage) >= 1.0 or patience_exhausted(self._stage_history, settings):
            self._network.set_weights(self._stage_best if self._stage_best else weights)
            self._stage_best = []
            self._progress.end_stage(self._stage)
            self._stage += 1
            self._complete = is_last_stage
        self._write_checkpoint(self._position)

    def _position_after(self, steps: int) -> EpochPosition:
        return EpochPosition.of_model(self._step.model, steps)

    def _save_if_due(self, steps: int) -> None:
        """Saves the state within an epoch, so that a kill costs little of a long one."""
        interval = max(SAVE_INTERVAL_SECONDS, self._save_seconds / SAVE_TIME_FRACTION)
        if self._clock.now() - self._saved_at >= interval:
            self._write_checkpoint(self._position_after(steps))

    def _write_checkpoint(self, position: EpochPosition) -> None:
        started = self._clock.now()
        within_stage = self._stage == self._compiled_stage
        average = self._step_average if within_stage and self._step_average is not None else self._epoch_average
        if not (within_stage or self._complete):
            average = None
        self._files.history.write(TrainingHistory(epochs=tuple(self._history)))
        optimizer = self._step.optimizer_state if within_stage else ()
        checkpoint = Checkpoint(
            weights=tuple(self._network.get_weights()),
            optimizer=tuple(np.asarray(variable) for variable in optimizer),
            history=tuple(self._history),
            seconds=self._progress.seconds,
            progress=self._progress.fraction,
            stage=self._stage,
            complete=self._complete,
            averages=() if average is None else tuple(average.values),
            average_steps=0 if average is None else average.steps,
            stage_best=tuple(self._stage_best),
            epoch_steps=position.steps,
            epoch_metrics=position.metrics,
            dropout=position.dropout,
        )
        self._files.checkpoint.write(checkpoint)
        self._saved_at = self._clock.now()
        self._save_seconds = self._saved_at - started

    def _finish(self) -> TrialResult:
        averaged = self._evaluate_epoch_average() if self._complete else None
        if self._files.weights.exists:
            self._network.set_weights(self._files.weights.read().weights)
        else:
            self._keep_first_weights()
        evaluation = self._evaluator.evaluate(self._network)
        evaluation.predictions.write(self._files.predictions.path)
        return TrialResult(
            finished=self._complete,
            objective=objective_of(evaluation, self._options.objective),
            evaluation=evaluation,
            history=tuple(self._history),
            parameters=self._network.count_params(),
            seconds=self._progress.seconds,
            averaged_epochs=averaged,
        )

    def _keep_first_weights(self) -> None:
        """Keeps the weights of a training that was stopped within its first epoch, so that there is something to export."""
        with self._averaged_weights(self._step_average, len(self._history) + 1):
            weights = self._network.get_weights()
        self._network.set_weights(weights)
        self._files.weights.write(NetworkWeights(weights=tuple(weights)))

    def _evaluate_epoch_average(self) -> AveragedEpochs | None:
        """Keeps the average of the last epochs' weights if it is better than the kept epoch."""
        average = self._epoch_average
        if average is None or average.steps < 2:
            return None
        self._pipeline = self._stage_pipeline(self._training_set())
        kept_objective = kept_report(self._history, self._recipe.stages).objective
        with self._averaged_weights(average, len(self._history)):
            evaluation = self._evaluator.evaluate_subset(self._network)
            objective = objective_of(evaluation, self._options.objective)
            is_better = objective > kept_objective
            if is_better:
                self._files.weights.write(NetworkWeights(weights=tuple(self._network.get_weights())))
        return AveragedEpochs(
            epochs=average.steps, objective=objective, kept_objective=kept_objective, adopted=is_better
        )


def train_epochs(
    recipe: Recipe,
    fold_data: FoldData,
    *,
    folder: Path,
    seed: int,
    options: TrainOptions | None = None,
    should_stop: Callable[[], bool] = never,
    clock: Clock = SYSTEM_CLOCK,
    networks: KeptNetworks | None = None,
) -> Generator[EpochReport, None, TrialResult]:
    """Trains a recipe epoch by epoch; the generator's return value is the result.

    The training continues from a checkpoint in ``folder``, within an epoch as well: with the same images in the same order, the
    same state of the optimizer, of averages and of dropout, and at the same place of its schedule. After every epoch ``folder``
    has the files ``recipe.yaml``, ``history.json``, ``checkpoint.npz`` and ``best.npz`` (the weights that are kept, of the best
    epoch as a rule); at the end also ``predictions.npz``. Within an epoch the checkpoint is written every
    ``SAVE_INTERVAL_SECONDS``, or less often where that would take more than ``SAVE_TIME_FRACTION`` of the time.

    Keras' dtype policy and the global random generators are set; a ``TrainingSession`` or the caller restores them.

    Args:
        recipe: What is trained.
        fold_data: Training and validation images.
        folder: The training's directory.
        seed: Of initial weights, sampling, order and augmentation.
        options: How it is trained; None: the defaults.
        should_stop: Called after every batch; when it returns True, the state is saved at once and the training ends.
        clock: Measures time; ``options.limits`` are on it.
        networks: Has networks of earlier trainings in this process, and keeps this one's; None: the network is built.

    Yields:
        A report after every epoch.

    Raises:
        RecipeError: The recipe does not fit its backbone or the classes.
        WeightsError: The pre-trained weights do not fit the network.
        TrialRejected: The loss or an output is not finite.
    """
    training = _Training(
        recipe,
        fold_data,
        folder=folder,
        seed=seed,
        options=TrainOptions() if options is None else options,
        should_stop=should_stop,
        clock=clock,
        networks=KeptNetworks() if networks is None else networks,
    )
    return training.epochs()


def train(
    recipe: Recipe,
    fold_data: FoldData,
    *,
    folder: Path,
    seed: int,
    options: TrainOptions | None = None,
    report: Callable[[EpochReport], None] = ignore,
    should_stop: Callable[[], bool] = never,
    clock: Clock = SYSTEM_CLOCK,
) -> TrialResult:
    """Trains a recipe as ``train_epochs`` does and writes ``result.json``.

    Args:
        recipe: As of ``train_epochs``.
        fold_data: As of ``train_epochs``.
        folder: As of ``train_epochs``.
        seed: As of ``train_epochs``.
        options: As of ``train_epochs``.
        report: Called after every epoch, when its checkpoint is written.
        should_stop: As of ``train_epochs``.
        clock: As of ``train_epochs``.

    Returns:
        The result; ``finished`` is False where the training was stopped.

    Raises:
        UserError: As ``train_epochs``.
        TrialRejected: As ``train_epochs``.

    Example:
        result = train(recipe, fold_data, folder=Path("runs/one"), seed=0)
        print(result.objective)
    """
    epochs = train_epochs(
        recipe, fold_data, folder=folder, seed=seed, options=options, should_stop=should_stop, clock=clock
    )
    return finish_training(epochs, folder, report)


def finish_training(
    epochs: Generator[EpochReport, None, TrialResult], folder: Path, report: Callable[[EpochReport], None]
) -> TrialResult:
    """Runs a training to its end and writes ``result.json``.

    Args:
        epochs: The training.
        folder: Its directory.
        report: Called after every epoch.
    """
    while True:
        try:
            report(next(epochs))
        except StopIteration as end:
            result: TrialResult = end.value
            TrainingDirectory(folder).result.write(result.to_artifact())
            return result
