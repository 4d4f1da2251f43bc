"""Trains one recipe: stages, schedules, epoch reports, checkpoints, a clean stop and a clean resume."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Generator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np

from bloodauto.augment import BatchPipeline
from bloodauto.errors import TrialRejected
from bloodauto.files import write_json, write_text
from bloodauto.recipe import Recipe
from bloodauto.trial.augmentation import policy_of
from bloodauto.trial.backbones import check_recipe
from bloodauto.trial.checkpoint import (
    Checkpoint,
    EpochReport,
    read_checkpoint,
    read_weights,
    write_checkpoint,
    write_weights,
)
from bloodauto.trial.material import Judgement, Material, judge
from bloodauto.trial.network import apply_unfreeze, build_network, restart_randomness
from bloodauto.trial.optimisation import build_loss, build_optimizer, class_weights, learning_rate_factor
from bloodauto.trial.result import TrialResult

Objective = Literal["shift", "accuracy", "balanced_accuracy", "macro_f1"]

#: Batch normalisation's statistics must follow within a short fine-tuning; MobileNetV2's own 0.999 would still hold a third
#: of ImageNet's after a thousand steps.
_LARGEST_BATCH_NORM_MOMENTUM = 0.9


@dataclass(frozen=True)
class TrainOptions:
    """How to train, as opposed to what.

    Attributes:
        objective: which score decides which epoch is kept and when patience ends.
        weights_file: pre-trained weights of the backbone; None: random.
        start_weights: weights of the whole network to start from (a finished trial of the same network), or None.
        jit_compile, precision: as Keras knows them; chosen by measurement (``trial/device.py``).
        augmentation_engine: ``opencv``, or ``tensorflow`` on its device; chosen by measurement as well.
        num_threads: threads that prepare images.
        time_limit_seconds: the schedule runs by whichever is further, its share of the steps or its share of this time,
            so that a training that is given an hour ends within it with its learning rate fully decayed (Li et al.,
            arXiv:1905.04753). It limits training time, not start-up. None: by steps alone.
    """

    objective: Objective = "shift"
    weights_file: Path | None = None
    start_weights: Path | None = None
    jit_compile: bool = False
    precision: str = "float32"
    augmentation_engine: str = "opencv"
    num_threads: int = 1
    time_limit_seconds: float | None = None


class _Clock:
    """How much of the whole recipe is done: by steps, or by time where that is further.

    Args:
        total_steps: of the whole recipe.
        time_limit_seconds: from now to the end; None: steps alone count.
        progress, seconds: what an earlier session did of it.
    """

    def __init__(self, total_steps: int, time_limit_seconds: float | None, progress: float, seconds: float) -> None:
        self._step = 1 / total_steps
        self._limit = time_limit_seconds
        self._start = self._by_steps = progress
        self._before = seconds
        self._started = time.monotonic()

    @property
    def seconds(self) -> float:
        return self._before + time.monotonic() - self._started

    def tick(self) -> None:
        self._by_steps += self._step

    def move_to(self, progress: float) -> None:
        self._by_steps = max(self._by_steps, progress)

    @property
    def progress(self) -> float:
        by_time = 0.0
        if self._limit is not None:
            elapsed = time.monotonic() - self._started
            by_time = self._start + (1 - self._start) * elapsed / max(self._limit, 1e-9)
        return min(max(self._by_steps, by_time), 1.0)


class _Control(keras.callbacks.Callback):
    """Sets the learning rate before each batch; ends the epoch when told to, or when the stage's time is over."""

    def __init__(self, run: _Run, stage: int) -> None:
        super().__init__()
        self._run, self._stage = run, stage

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        settings = self._run.recipe.stages[self._stage]
        factor = learning_rate_factor(settings.schedule, self._run.stage_progress(self._stage))
        self.model.optimizer.learning_rate.assign(settings.optimizer.learning_rate * factor)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self._run.clock.tick()
        # An exception here would skip Keras' own cleaning up; the flag does not.
        if self._run.should_stop():
            self._run.stopped = True
            self.model.stop_training = True
        elif self._run.stage_progress(self._stage) >= 1.0:
            self.model.stop_training = True


class _Run:
    """One training in progress."""

    def __init__(
        self,
        recipe: Recipe,
        material: Material,
        *,
        seed: int,
        options: TrainOptions,
        folder: Path,
        should_stop: Callable[[], bool],
    ) -> None:
        check_recipe(recipe)
        self.recipe, self.material, self.seed = recipe, material, seed
        self.options, self.folder, self.should_stop = options, folder, should_stop
        self.stopped = False
        self._steps_per_epoch = max(len(material.train_index) // recipe.batch_size, 1)
        ends = np.cumsum([stage.epochs for stage in recipe.stages]) / recipe.total_epochs
        self._stage_ends = [0.0, *(float(end) for end in ends[:-1]), 1.0]
        self._weights = class_weights(recipe.loss, material.labels[material.train_index], material.num_classes)
        self.clock = _Clock(1, None, 0.0, 0.0)

    @property
    def checkpoint_path(self) -> Path:
        return self.folder / "checkpoint.npz"

    @property
    def best_path(self) -> Path:
        return self.folder / "best.npz"

    def stage_progress(self, stage: int) -> float:
        start, end = self._stage_ends[stage], self._stage_ends[stage + 1]
        # A millionth of slack: sums of steps do not reach a whole number exactly.
        return (self.clock.progress + 1e-6 - start) / (end - start)

    def _pipeline(self) -> BatchPipeline:
        train = self.material.train_index
        labels = self.material.labels[train]
        policy = policy_of(self.recipe.augmentation)
        if self.options.augmentation_engine == "tensorflow":
            from bloodauto.augment.graph import OnDevice

            policy = OnDevice(policy)
        return BatchPipeline(
            self.material.train_images,
            np.eye(self.material.num_classes, dtype=np.float32)[labels],
            sample_weights=self._weights[labels],
            batch_size=min(self.recipe.batch_size, len(train)),
            policy=policy,
            seed=self.seed,
            num_threads=self.options.num_threads,
            last_batch="drop",
        )

    def _build(self) -> keras.Model:
        keras.utils.set_random_seed(self.seed)
        keras.config.set_dtype_policy(self.options.precision)
        shape = self.material.images.shape
        network = build_network(
            self.recipe,
            num_classes=self.material.num_classes,
            image_shape_px=(shape[1], shape[2]),
            weights_file=self.options.weights_file,
        )
        for layer in network._flatten_layers():
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.momentum = min(layer.momentum, _LARGEST_BATCH_NORM_MOMENTUM)
        return network

    def _compile(self, network: keras.Model, stage: int, state: list[np.ndarray]) -> None:
        apply_unfreeze(network, self.recipe.backbone, self.recipe.stages[stage])
        network.compile(
            optimizer=build_optimizer(self.recipe.stages[stage].optimizer),
            loss=build_loss(self.recipe.loss),
            weighted_metrics=["accuracy"],
            jit_compile=self.options.jit_compile,
        )
        if state:
            # Not the optimizer that was built: half precision wraps it in one that scales the loss.
            network.optimizer.build(network.trainable_variables)
            for variable, value in zip(network.optimizer.variables, state, strict=True):
                variable.assign(value)

    def epochs(self) -> Generator[EpochReport, None, TrialResult]:
        """Trains; yields after every epoch, its checkpoint written."""
        network = self._build()
        if self.options.start_weights is not None:
            network.set_weights(read_weights(self.options.start_weights))
        saved = read_checkpoint(self.checkpoint_path)
        if saved is not None:
            network.set_weights(saved.weights)
        history = list(saved.history) if saved is not None else []
        stage = saved.stage if saved is not None else 0
        optimizer_state = saved.optimizer if saved is not None else []
        self.clock = _Clock(
            self._steps_per_epoch * self.recipe.total_epochs,
            self.options.time_limit_seconds,
            saved.progress if saved is not None else 0.0,
            saved.seconds if saved is not None else 0.0,
        )
        write_text(self.folder / "recipe.yaml", self.recipe.to_yaml())
        complete = saved is not None and saved.complete
        compiled_stage = -1
        pipeline = self._pipeline()
        while not complete and not self.stopped:
            if compiled_stage != stage:
                self._compile(network, stage, optimizer_state)
                compiled_stage = stage
            report = self._epoch(network, pipeline, len(history) + 1, stage)
            if self.stopped:
                break
            history.append(report)
            if report.objective >= max(earlier.objective for earlier in history):
                write_weights(self.best_path, network.get_weights())
            if self.stage_progress(stage) >= 1.0 or self._patience_over(history, stage):
                self.clock.move_to(self._stage_ends[stage + 1])
                stage += 1
                complete = stage == len(self.recipe.stages)
            self._save(network, history, stage, complete, keep_optimizer=stage == compiled_stage)
            yield report
        return self._finish(network, history, complete)

    def _patience_over(self, history: list[EpochReport], stage: int) -> bool:
        patience = self.recipe.stages[stage].patience_epochs
        scores = [report.objective for report in history if report.stage == stage]
        return patience is not None and len(scores) - 1 - int(np.argmax(scores)) >= patience

    def _epoch(self, network: keras.Model, pipeline: BatchPipeline, epoch: int, stage: int) -> EpochReport:
        started = time.monotonic()
        restart_randomness(network, epoch)
        waited_before = pipeline.wait_seconds
        batches = pipeline.epoch(epoch)
        try:
            logs = network.fit(
                batches,
                steps_per_epoch=pipeline.batches_per_epoch,
                epochs=1,
                verbose=0,
                shuffle=False,
                callbacks=[_Control(self, stage)],
            ).history
        finally:
            # TensorFlow may still be drawing a batch ahead; its thread then ends the iterator itself.
            with contextlib.suppress(ValueError):
                batches.close()
        trained = time.monotonic()
        train_loss = float(logs["loss"][-1])
        if not math.isfinite(train_loss):
            raise TrialRejected(
                "nan", f"the loss is {train_loss} after epoch {epoch}; a smaller learning rate may help"
            )
        judgement, _ = judge(network, self.material, quick=True)
        ended = time.monotonic()
        return EpochReport(
            epoch=epoch,
            stage=stage,
            seconds=ended - started,
            evaluation_seconds=ended - trained,
            train_loss=train_loss,
            train_accuracy=float(logs["accuracy"][-1]),
            learning_rate=float(network.optimizer.learning_rate.numpy()),
            loss=judgement.metrics.loss,
            accuracy=judgement.metrics.accuracy,
            balanced_accuracy=judgement.metrics.balanced_accuracy,
            macro_f1=judgement.metrics.macro_f1,
            shift=judgement.shift,
            objective=objective_of(judgement, self.options.objective),
            data_wait_fraction=(pipeline.wait_seconds - waited_before) / max(trained - started, 1e-9),
        )

    def _save(
        self, network: keras.Model, history: list[EpochReport], stage: int, complete: bool, *, keep_optimizer: bool
    ) -> None:
        state = [np.asarray(variable) for variable in network.optimizer.variables] if keep_optimizer else []
        write_json(self.folder / "history.json", [asdict(report) for report in history])
        write_checkpoint(
            self.checkpoint_path,
            Checkpoint(
                network.get_weights(), state, tuple(history), self.clock.seconds, self.clock.progress, stage, complete
            ),
        )

    def _finish(self, network: keras.Model, history: list[EpochReport], complete: bool) -> TrialResult:
        if self.best_path.is_file():
            network.set_weights(read_weights(self.best_path))
        judgement, predictions = judge(network, self.material, quick=False)
        predictions.write(self.folder / "predictions.npz")
        return TrialResult(
            finished=complete,
            objective=objective_of(judgement, self.options.objective),
            judgement=judgement,
            history=tuple(history),
            parameters=network.count_params(),
            seconds=self.clock.seconds,
        )


def objective_of(judgement: Judgement, objective: Objective) -> float:
    """The one number a search maximises, 0-1."""
    return judgement.shift if objective == "shift" else float(getattr(judgement.metrics, objective))


def train_epochs(
    recipe: Recipe,
    material: Material,
    *,
    seed: int,
    options: TrainOptions,
    folder: Path,
    should_stop: Callable[[], bool],
) -> Generator[EpochReport, None, TrialResult]:
    """Trains a recipe epoch by epoch; the generator's return value is the result.

    A checkpoint found in ``folder`` is gone on from. After every epoch ``folder`` holds ``recipe.yaml``, ``history.json``,
    ``checkpoint.npz`` and ``best.npz`` (the weights of the best epoch); at the end also ``predictions.npz``.

    Args:
        should_stop: asked after every batch; when true the unfinished epoch is given up and the training ends.

    Raises:
        RecipeError: the recipe asks for what its backbone has not.
        WeightsError: the weights do not fit.
        TrialRejected: the loss is no number.
    """
    run = _Run(recipe, material, seed=seed, options=options, folder=folder, should_stop=should_stop)
    return run.epochs()


def train(
    recipe: Recipe,
    material: Material,
    *,
    seed: int,
    options: TrainOptions,
    folder: Path,
    report: Callable[[EpochReport], None],
    should_stop: Callable[[], bool],
) -> TrialResult:
    """As ``train_epochs``, reporting to a function; also writes ``result.json``."""
    epochs = train_epochs(recipe, material, seed=seed, options=options, folder=folder, should_stop=should_stop)
    while True:
        try:
            report(next(epochs))
        except StopIteration as end:
            result: TrialResult = end.value
            write_json(folder / "result.json", result.to_json())
            return result
