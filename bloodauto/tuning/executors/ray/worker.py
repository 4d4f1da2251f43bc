"""The Ray Tune worker: a long-lived process that does one training after another, an epoch per step."""

from __future__ import annotations

import contextlib
import os
import traceback
from pathlib import Path
from typing import Any

import psutil
from ray import tune

from bloodauto.clock import SYSTEM_CLOCK
from bloodauto.errors import BloodautoError
from bloodauto.run.artifacts.training import TrainingFailure as FailureFile
from bloodauto.run.training_directory import TrainingDirectory
from bloodauto.tuning.executors.failures import failure_from
from bloodauto.tuning.executors.ray.processes import record_process
from bloodauto.tuning.executors.trainer import TrainerFactory, Training
from bloodauto.tuning.messages import Completed, Stopped, TrainingEnd, TrainingRequest

#: Exit code of a worker that ends itself because its memory has grown. Ray starts a new one for the same training.
_RECYCLED_EXIT_CODE = 86
#: A training gives heartbeats at least this often while it trains, by touching a file.
_HEARTBEAT_SECONDS = 5.0
#: How often it looks whether it is to save its state and leave; on a file system of a network that takes a while.
_STOP_CHECK_SECONDS = 0.25
#: Keys of the dictionaries that Tune passes between the driver and a worker.
REQUEST, REPORT, END = "request", "report", "end"


class Worker(tune.Trainable):  # Ray has no types
    """Does the trainings that the driver requests. It knows neither the study nor the budget."""

    def setup(
        self,
        config: dict[str, Any],
        *,
        run: Path | None = None,
        factory: TrainerFactory | None = None,
        memory_limit_bytes: int | None = None,
    ) -> None:
        """Called by Tune once in a new process.

        Args:
            config: The first request, under ``REQUEST``.
            run: The run directory.
            factory: Makes the trainer.
            memory_limit_bytes: Resident memory above which the worker is replaced before its next training.
        """
        # Tune's signature makes the arguments optional.
        assert run is not None
        assert factory is not None
        assert memory_limit_bytes is not None
        self._run, self._memory_limit_bytes = run, memory_limit_bytes
        self._clock = SYSTEM_CLOCK
        self._trainer = factory.make_trainer()
        self._training: Training | None = None
        self._take_request(config[REQUEST])

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Takes the next request without a new process; called by Tune.

        Args:
            new_config: The request, under ``REQUEST``.
        """
        self._end_training()
        if psutil.Process().memory_info().rss > self._memory_limit_bytes:
            os._exit(_RECYCLED_EXIT_CODE)
        self._take_request(new_config[REQUEST])
        return True

    def cleanup(self) -> None:
        """Frees memory; called by Tune at the end."""
        self._end_training()
        self._trainer.close()

    def _end_training(self) -> None:
        """Closes a training that was stopped between two epochs."""
        if self._training is not None:
            self._training.close()
        self._training = None

    def _take_request(self, request: TrainingRequest) -> None:
        self._request = request
        self._heartbeat_at = self._stop_checked_at = float("-inf")
        self._directory = TrainingDirectory(self._run / request.folder)
        self._directory.root.mkdir(parents=True, exist_ok=True)
        self._directory.stop_request.unlink(missing_ok=True)
        record_process(self._directory)

    def _give_heartbeat(self) -> bool:
        now = self._clock.now()
        if now - self._heartbeat_at > _HEARTBEAT_SECONDS:
            self._heartbeat_at = now
            self._directory.heartbeat.touch()
        if now - self._stop_checked_at < _STOP_CHECK_SECONDS:
            return False
        self._stop_checked_at = now
        return self._directory.stop_request.exists()

    def step(self) -> dict[str, Any]:
        """One epoch, or the end of the training; called by Tune.

        Returns:
            An ``EpochReport`` under ``REPORT``, or a ``TrainingEnd`` under ``END``.
        """
        try:
            if self._training is None:
                self._training = self._trainer.train(self._request, self._give_heartbeat)
            return {REPORT: next(self._training), "done": False}
        except StopIteration as stop:
            end: TrainingEnd = stop.value
        except Exception as error:
            end = failure_from(error)
            self._save_failure(error, end)
        return {END: end, "done": True}

    def _save_failure(self, error: Exception, end: TrainingEnd) -> None:
        assert not isinstance(end, Completed | Stopped)
        # The end tells the driver all of it: a disk that is full must not turn it into another failure.
        with contextlib.suppress(OSError):
            self._directory.failure.write(FailureFile(reason=end.reason, message=end.message))
            if not isinstance(error, BloodautoError):
                text = "".join(traceback.format_exception(error))
                self._directory.traceback.write_text(text, encoding="utf-8")

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing: the state of a training is in its directory, where a new worker finds it.

        Args:
            checkpoint_dir: Where Tune would have it.
        """

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Nothing; see ``save_checkpoint``.

        Args:
            checkpoint: What ``save_checkpoint`` did not write.
        """
