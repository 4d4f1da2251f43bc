"""Trains one recipe: stages, schedules, epoch reports, checkpoints, a clean stop and a clean resume."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Generator
from pathlib import Path

import keras
import numpy as np

from bloodauto.clock import SYSTEM_CLOCK, Clock
from bloodauto.config.recipe import Recipe
from bloodauto.errors import TrialRejected
from bloodauto.evaluation.evaluator import Evaluator
from bloodauto.evaluation.fold_data import FoldData
from bloodauto.models.backbones import check_recipe
from bloodauto.models.network import apply_unfreeze, build_network
from bloodauto.run.artifacts import AveragedEpochs, Checkpoint, EpochReport, NetworkWeights, TrainingHistory
from bloodauto.run.files import write_text
from bloodauto.run.training_directory import TrainingDirectory
from bloodauto.training.augmentation import check_augmentation
from bloodauto.training.averaging import WeightAverage, may_gain_from_averaging
from bloodauto.training.distillation import Batches, DistillationBatches
from bloodauto.training.epoch_history import (
    is_best,
    keeps_last,
    kept_report,
    patience_exhausted,
    plateau_factor,
    stage_metric,
)
from bloodauto.training.epoch_runner import first_images, fit_epoch
from bloodauto.training.imbalance import TrainingSet, training_set
from bloodauto.training.input_pipeline import stage_pipeline
from bloodauto.training.layerwise_rates import learning_rate_multipliers
from bloodauto.training.limits import stage_ends
from bloodauto.training.optimizers import build_loss, build_optimizer, check_loss
from bloodauto.training.options import TrainOptions
from bloodauto.training.result import TrialResult, objective_of
from bloodauto.training.stage_control import ProgressClock, StageControl

#: Batch normalisation's statistics must follow within a short fine-tuning; MobileNetV2's own 0.999 would still hold a third
#: of ImageNet's after a thousand steps.
_LARGEST_BATCH_NORM_MOMENTUM = 0.9


class _Training:
    """One training in progress."""

    def __init__(
        self,
        recipe: Recipe,
        fold_data: FoldData,
        *,
        seed: int,
        options: TrainOptions,
        folder: Path,
        should_stop: Callable[[], bool],
        clock: Clock,
    ) -> None:
        check_recipe(recipe)
        check_loss(recipe.loss, fold_data.num_classes)
        check_augmentation(recipe)
        self.recipe, self.fold_data, self.seed = recipe, fold_data, seed
        self.options, self.files, self.clock = options, TrainingDirectory(folder), clock
        self.should_stop = lambda: should_stop() or options.limits.is_past_deadline(clock.now())
        self._evaluator = Evaluator(fold_data, clock)
        self._average: WeightAverage | None = None
        self._last_epochs_average: WeightAverage | None = None

    def _progress_clock(self, saved: Checkpoint | None) -> ProgressClock:
        steps_per_epoch = max(len(self.fold_data.train_index) // self.recipe.batch_size, 1)
        return ProgressClock(
            steps_per_epoch * self.recipe.total_epochs,
            stage_ends(self.recipe),
            training_seconds=self.options.limits.training_seconds_from(self.clock.now()),
            done=saved.progress if saved is not None else 0.0,
            seconds=saved.seconds if saved is not None else 0.0,
            clock=self.clock,
        )

    def _training_set(self) -> TrainingSet:
        fold_data = self.fold_data
        labels = fold_data.labels[fold_data.train_index]
        imbalance = self.recipe.imbalance
        return training_set(fold_data.train_images, labels, fold_data.num_classes, imbalance, seed=self.seed)

    def _pipeline(self, train_set: TrainingSet, stage: int) -> Batches:
        pipeline = stage_pipeline(
            self.recipe,
            stage,
            train_set,
            images_per_epoch=len(self.fold_data.train_index),
            seed=self.seed,
            num_threads=self.options.num_threads,
            num_processes=self.options.num_processes,
        )
        return pipeline if self.options.teacher is None else DistillationBatches(pipeline, self.options.teacher)

    def _build(self) -> keras.Model:
        keras.utils.set_random_seed(self.seed)
        keras.config.set_dtype_policy(self.options.precision)
        shape = self.fold_data.images.shape
        network = build_network(
            self.recipe,
            num_classes=self.fold_data.num_classes,
            image_shape_px=(shape[1], shape[2]),
            weights_file=self.options.weights_file,
        )
        for layer in network._flatten_layers():
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.momentum = min(layer.momentum, _LARGEST_BATCH_NORM_MOMENTUM)
        return network

    def _compile(self, network: keras.Model, stage: int, saved: Checkpoint | None) -> None:
        settings = self.recipe.stages[stage]
        apply_unfreeze(network, self.recipe.backbone, settings)
        rate_multipliers = None
        if settings.layer_decay < 1:
            rate_multipliers = learning_rate_multipliers(network, self.recipe.backbone, settings.layer_decay)
        network.compile(
            optimizer=build_optimizer(settings.optimizer, rate_multipliers),
            loss=build_loss(self.recipe.loss),
            weighted_metrics=["accuracy"],
            jit_compile=self.options.jit_compile,
        )
        if saved is not None and saved.optimizer:
            # Not the optimizer that was built: half precision wraps it in one that scales the loss.
            network.optimizer.build(network.trainable_variables)
            for variable, value in zip(network.optimizer.variables, saved.optimizer, strict=True):
                variable.assign(value)
        self._average = None
        if settings.weight_averaging != "none":
            averages, steps = (saved.averages, saved.average_steps) if saved is not None else ([], 0)
            self._average = WeightAverage(network, settings.weight_averaging, averages=averages, steps=steps)
        self._start_last_epochs_average(network, stage, saved)

    def _start_last_epochs_average(self, network: keras.Model, stage: int, saved: Checkpoint | None) -> None:
        """Averages the epochs of the recipe's last quarter where nothing else does, and where it may gain anything."""
        self._last_epochs_average = None
        is_last = stage + 1 == len(self.recipe.stages)
        if self.options.average_last_epochs and is_last and may_gain_from_averaging(self.recipe.stages[stage]):
            averages, steps = (saved.averages, saved.average_steps) if saved is not None else ([], 0)
            self._last_epochs_average = WeightAverage(network, "swa", averages=averages, steps=steps)

    def epochs(self) -> Generator[EpochReport, None, TrialResult]:
        """Trains; yields after every epoch, its checkpoint written."""
        network = self._build()
        if self.options.start_weights is not None:
            network.set_weights(NetworkWeights.read(self.options.start_weights).weights)
        saved = self.files.checkpoint.read_if_exists()
        if saved is not None:
            network.set_weights(saved.weights)
        history = list(saved.history) if saved is not None else []
        stage = saved.stage if saved is not None else 0
        stage_best = list(saved.stage_best) if saved is not None else []
        clock = self._progress_clock(saved)
        write_text(self.files.recipe, self.recipe.to_yaml())
        complete = saved is not None and saved.complete
        if complete:
            apply_unfreeze(network, self.recipe.backbone, self.recipe.stages[-1])
            self._start_last_epochs_average(network, len(self.recipe.stages) - 1, saved)
            return self._finish(network, history, clock, complete=True)
        compiled_stage = -1
        train_set = self._training_set()
        while not complete:
            settings = self.recipe.stages[stage]
            if compiled_stage != stage:
                self._compile(network, stage, saved if compiled_stage < 0 else None)
                pipeline = self._pipeline(train_set, stage)
                compiled_stage = stage
            report, judged = self._epoch(network, pipeline, clock, history, stage)
            if report is None:
                break
            history.append(report)
            if self._last_epochs_average is not None:
                self._last_epochs_average.add_step(report.stage_progress)
            in_stage = [one for one in history if one.stage == stage]
            if keeps_last(history, self.recipe.stages):
                self.files.weights.write(NetworkWeights(weights=tuple(judged)))
            is_last_stage = stage + 1 == len(self.recipe.stages)
            if settings.restore_best and not is_last_stage and is_best(in_stage, stage_metric(settings)):
                stage_best = judged
            if clock.stage_progress(stage) >= 1.0 or patience_exhausted(in_stage, settings):
                network.set_weights(stage_best if stage_best else judged)
                stage_best = []
                clock.end_stage(stage)
                stage += 1
                complete = is_last_stage
            self._save(
                network, history, clock, stage, stage_best, complete=complete, same_stage=stage == compiled_stage
            )
            yield report
        return self._finish(network, history, clock, complete=complete)

    def _epoch(
        self, network: keras.Model, pipeline: Batches, clock: ProgressClock, history: list[EpochReport], stage: int
    ) -> tuple[EpochReport | None, list[np.ndarray]]:
        """Trains and judges; returns the report and the weights that were judged. No report: it was told to stop."""
        started = self.clock.now()
        settings, epoch = self.recipe.stages[stage], len(history) + 1
        in_stage = [one for one in history if one.stage == stage]
        plateau = settings.schedule.name == "plateau"
        control = StageControl(
            settings,
            stage,
            clock=clock,
            average=self._average,
            rate_factor=plateau_factor(settings.schedule, settings.epochs, in_stage) if plateau else 1.0,
            should_stop=self.should_stop,
        )
        waited_before = pipeline.wait_seconds
        train_loss, train_accuracy = fit_epoch(network, pipeline, control, epoch)
        trained = self.clock.now()
        if control.stop_requested:
            return None, []
        if not math.isfinite(train_loss):
            raise TrialRejected(
                "nan", f"the loss is {train_loss} after epoch {epoch}; a smaller learning rate may help"
            )
        waited = pipeline.wait_seconds - waited_before
        average = self._average
        with (
            average.applied(lambda: first_images(pipeline, epoch)) if average is not None else contextlib.nullcontext()
        ):
            evaluation = self._evaluator.evaluate_subset(network)
            judged = network.get_weights()
        ended = self.clock.now()
        report = EpochReport(
            epoch=epoch,
            stage=stage,
            seconds=ended - started,
            evaluation_seconds=ended - trained,
            train_loss=train_loss,
            train_accuracy=train_accuracy,
            learning_rate=float(network.optimizer.learning_rate.numpy()),
            loss=evaluation.clean.loss,
            accuracy=evaluation.clean.accuracy,
            balanced_accuracy=evaluation.clean.balanced_accuracy,
            macro_f1=evaluation.clean.macro_f1,
            shift=evaluation.score,
            objective=objective_of(evaluation, self.options.objective),
            data_wait_fraction=waited / max(trained - started, 1e-9),
            stage_progress=min(clock.stage_progress(stage), 1.0),
        )
        return report, judged

    def _save(
        self,
        network: keras.Model,
        history: list[EpochReport],
        clock: ProgressClock,
        stage: int,
        stage_best: list[np.ndarray],
        *,
        complete: bool,
        same_stage: bool,
    ) -> None:
        # Whether the average of the last epochs is any better is found out when nothing is left to train.
        average = self._last_epochs_average if complete or self._average is None else self._average
        if not (same_stage or complete):
            average = None
        self.files.history.write(TrainingHistory(epochs=tuple(history)))
        checkpoint = Checkpoint(
            weights=tuple(network.get_weights()),
            optimizer=tuple(np.asarray(variable) for variable in network.optimizer.variables) if same_stage else (),
            history=tuple(history),
            seconds=clock.seconds,
            progress=clock.progress,
            stage=stage,
            complete=complete,
            averages=tuple(average.values) if average is not None else (),
            average_steps=average.steps if average is not None else 0,
            stage_best=tuple(stage_best),
        )
        self.files.checkpoint.write(checkpoint)

    def _finish(
        self, network: keras.Model, history: list[EpochReport], clock: ProgressClock, *, complete: bool
    ) -> TrialResult:
        averaged = self._evaluate_last_epochs_average(network, history) if complete else None
        if self.files.weights.exists:
            network.set_weights(self.files.weights.read().weights)
        evaluation = self._evaluator.evaluate(network)
        evaluation.predictions.write(self.files.predictions.path)
        return TrialResult(
            finished=complete,
            objective=objective_of(evaluation, self.options.objective),
            evaluation=evaluation,
            history=tuple(history),
            parameters=network.count_params(),
            seconds=clock.seconds,
            averaged_epochs=averaged,
        )

    def _evaluate_last_epochs_average(self, network: keras.Model, history: list[EpochReport]) -> AveragedEpochs | None:
        """Keeps the average of the last epochs' weights if it is better than what was kept; the network has the last ones."""
        last = self._last_epochs_average
        if last is None or last.steps < 2:
            return None
        pipeline = self._pipeline(self._training_set(), len(self.recipe.stages) - 1)
        kept = kept_report(history, self.recipe.stages).objective
        with last.applied(lambda: first_images(pipeline, len(history))):
            evaluation = self._evaluator.evaluate_subset(network)
            objective = objective_of(evaluation, self.options.objective)
            if objective > kept:
                self.files.weights.write(NetworkWeights(weights=tuple(network.get_weights())))
        return AveragedEpochs(epochs=last.steps, objective=objective, kept_objective=kept, adopted=objective > kept)


def train_epochs(
    recipe: Recipe,
    fold_data: FoldData,
    *,
    seed: int,
    options: TrainOptions,
    folder: Path,
    should_stop: Callable[[], bool],
    clock: Clock = SYSTEM_CLOCK,
) -> Generator[EpochReport, None, TrialResult]:
    """Trains a recipe epoch by epoch; the generator's return value is the result.

    A checkpoint found in ``folder`` is gone on from. After every epoch ``folder`` holds ``recipe.yaml``, ``history.json``,
    ``checkpoint.npz`` and ``best.npz`` (the weights that are kept, of the best epoch as a rule); at the end also
    ``predictions.npz``.

    Args:
        should_stop: Called after every batch; when it returns True the unfinished epoch is dropped and the training ends.
        clock: Measures time; ``options.limits`` are on it.

    Raises:
        RecipeError: the recipe asks for what its backbone or the classes have not.
        WeightsError: the weights do not fit.
        TrialRejected: the loss is no number.
    """
    training = _Training(
        recipe, fold_data, seed=seed, options=options, folder=folder, should_stop=should_stop, clock=clock
    )
    return training.epochs()


def train(
    recipe: Recipe,
    fold_data: FoldData,
    *,
    seed: int,
    options: TrainOptions,
    folder: Path,
    report: Callable[[EpochReport], None],
    should_stop: Callable[[], bool],
    clock: Clock = SYSTEM_CLOCK,
) -> TrialResult:
    """As ``train_epochs``, reporting to a function; also writes ``result.json``."""
    epochs = train_epochs(
        recipe, fold_data, seed=seed, options=options, folder=folder, should_stop=should_stop, clock=clock
    )
    while True:
        try:
            report(next(epochs))
        except StopIteration as end:
            result: TrialResult = end.value
            TrainingDirectory(folder).result.write(result.to_artifact())
            return result
