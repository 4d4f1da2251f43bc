"""The Ray Tune worker: a long-lived process that trains one assignment after another, an epoch a step."""

from __future__ import annotations

import contextlib
import json
import os
import time
import traceback
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from ray import tune

from bloodauto.config.objectives import Objectives
from bloodauto.config.recipe import parse_recipe
from bloodauto.data.dataset import CellDataset
from bloodauto.data.split import Splits
from bloodauto.errors import TrialAbort, TrialFailure, UserError
from bloodauto.models.device import Device
from bloodauto.models.tensorflow import import_tensorflow_quietly
from bloodauto.run.artifacts import TrainingFailure
from bloodauto.run.training_directory import TrainingDirectory
from bloodauto.shift.suite import ShiftSuite
from bloodauto.training.limits import TimeLimits
from bloodauto.tuning.executors.ray.processes import record_process

#: Exit code of a worker that ends itself because its memory has grown; Ray starts a new one for the same training.
_RECYCLED_EXIT_CODE = 86
#: A training that works on says so at least this often, between two batches.
_HEARTBEAT_SECONDS = 5.0
#: The file that says it, by its time of change, in the training's folder.
HEARTBEAT_FILE = "heartbeat"


@dataclass(frozen=True)
class WorkerOptions:
    """What every worker of a run is told once.

    Attributes:
        run: the run directory; every path in an assignment is relative to it.
        device: what each worker trains on.
        weights_files: backbone name and ``weights`` of a recipe -> file, resolved before the search began.
        memory_limit_bytes: resident memory beyond which a worker is replaced before its next training.
    """

    run: str
    device: Device
    objectives: Objectives
    weights_files: dict[tuple[str, str], str | None]
    memory_limit_bytes: int


class Worker(tune.Trainable):
    """Trains assignments; knows the study and the budget only as a time limit and a deadline."""

    def setup(  # type: ignore[override]
        self,
        config: dict[str, Any],
        *,
        dataset: CellDataset | None = None,
        splits: Splits | None = None,
        suite: ShiftSuite | None = None,
        target: np.ndarray | None = None,
        options: WorkerOptions | None = None,
    ) -> None:
        assert dataset is not None
        assert splits is not None
        assert suite is not None
        assert target is not None
        assert options is not None
        # Before any other import of Keras: it keeps TensorFlow's messages out of the worker's log.
        import_tensorflow_quietly()
        from bloodauto.training.session import TrainingData, TrainingSession

        self._options = options
        self._session_stack = contextlib.ExitStack()
        self._session = self._session_stack.enter_context(
            TrainingSession.open(
                TrainingData(dataset, splits, suite, target), device=options.device, dedicated_process=True
            )
        )
        self._epochs: Generator[Any, None, Any] | None = None
        self._begin(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Takes the next assignment without a new process."""
        self._end_training()
        if psutil.Process().memory_info().rss > self._options.memory_limit_bytes:
            os._exit(_RECYCLED_EXIT_CODE)
        self._begin(new_config)
        return True

    def cleanup(self) -> None:
        self._end_training()
        self._session_stack.close()

    def _end_training(self) -> None:
        if self._epochs is not None:
            self._epochs.close()
        self._epochs = None

    def _begin(self, config: dict[str, Any]) -> None:
        self._assignment = config
        self._folder = Path(self._options.run) / config["folder"]
        self._folder.mkdir(parents=True, exist_ok=True)
        record_process(self._folder)

    def _start(self) -> Generator[Any, None, Any]:
        from bloodauto.training.trainer import TrainOptions

        config, options = self._assignment, self._options
        recipe = parse_recipe(config["recipe"], origin=f"assignment {config['name']}")
        weights = options.weights_files[(recipe.backbone.name, recipe.backbone.weights)]
        start = Path(options.run) / config["start_weights"] if config["start_weights"] is not None else None
        self._hard_limit_unix, self._heartbeat_at = config["hard_limit_unix"], 0.0
        until = config["train_until_unix"]
        try:
            self._session.fold(config["fold"])
        except UserError as error:
            # Images that fail here fail for every training alike.
            raise TrialAbort("abort", str(error)) from error
        return self._session.epochs(
            recipe,
            self._folder,
            seed=config["seed"],
            fold=config["fold"],
            options=TrainOptions(
                objective=options.objectives.primary,
                weights_file=Path(weights) if weights is not None else None,
                start_weights=start if start is not None and start.is_file() else None,
                limits=TimeLimits(
                    training_seconds=config["time_limit_seconds"],
                    schedule_until=None if until is None else until - time.time() + time.monotonic(),
                ),
                average_last_epochs=True,
            ),
            should_stop=self._should_stop,
        )

    def _should_stop(self) -> bool:
        """Asked between any two batches."""
        now = time.monotonic()
        if now - self._heartbeat_at > _HEARTBEAT_SECONDS:
            self._heartbeat_at = now
            (self._folder / HEARTBEAT_FILE).touch()
        return time.time() > self._hard_limit_unix

    def step(self) -> dict[str, Any]:
        """One epoch, or the training's end."""
        try:
            if self._epochs is None:
                self._epochs = self._start()
            report = next(self._epochs)
            # As text: Tune flattens nested results before its scheduler and searcher see them.
            return {"done": False, "name": self._assignment["name"], "report": report.model_dump_json()}
        except StopIteration as end:
            result = end.value
            TrainingDirectory(self._folder).result.write(result.to_artifact())
            kind = "finished" if result.finished else "stopped"
            secondary = result.secondary_values(self._options.objectives)
            return self._ended({"kind": kind, "objective": result.objective, "secondary": secondary})
        except TrialFailure as failure:
            return self._failed(failure.reason, str(failure))
        except UserError as error:
            return self._failed("rejected", str(error))
        except Exception as error:
            reason = _failure_reason(error)
            TrainingDirectory(self._folder).traceback.write_text(traceback.format_exc(), encoding="utf-8")
            return self._failed(
                reason, f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"[:500]
            )

    def _failed(self, reason: str, message: str) -> dict[str, Any]:
        TrainingDirectory(self._folder).failure.write(TrainingFailure(reason=reason, message=message))
        return self._ended({"kind": "failed", "reason": reason, "message": message})

    def _ended(self, ending: dict[str, Any]) -> dict[str, Any]:
        return {"done": True, "name": self._assignment["name"], "ending": json.dumps(ending)}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing: a training's state lies in its folder of the run directory, where a new worker finds it."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Nothing; see ``save_checkpoint``."""


def _failure_reason(error: Exception) -> str:
    """A word for an error that the training did not expect."""
    name = type(error).__name__
    if name == "ResourceExhaustedError" or isinstance(error, MemoryError):
        return "out_of_memory"
    if name == "InvalidArgumentError" or isinstance(error, ValueError):
        return "rejected"
    if isinstance(error, OSError):
        return "io"
    return "crash"
