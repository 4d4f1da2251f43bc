"""The trainer of a real search: Keras trains what a worker is given. It knows no Ray, no study and no budget."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bloodauto.clock import SYSTEM_CLOCK, Clock
from bloodauto.config.objectives import Objectives
from bloodauto.errors import TrialAbort, UserError
from bloodauto.models.device import Device
from bloodauto.models.tensorflow import import_tensorflow_quietly
from bloodauto.run.training_directory import TrainingDirectory
from bloodauto.training.result import TrialResult
from bloodauto.training.session import TrainingData, TrainingSession
from bloodauto.training.trainer import TrainOptions
from bloodauto.tuning.executors.ends import completed_end, end_on_disk
from bloodauto.tuning.executors.trainer import Heartbeat, Training, TrialTrainer
from bloodauto.tuning.messages import Completed, Stopped, TrainingEnd, TrainingRequest


@dataclass(frozen=True)
class KerasTrainerFactory:
    """Everything that the trainings of a search have in common.

    Attributes:
        run: The run directory.
        data: The images of all folds.
        objectives: What is optimised.
        device: What each worker trains on.
        weights_files: Pre-trained weights by name and ``weights`` of a backbone; None: random ones.
    """

    run: Path
    data: TrainingData
    objectives: Objectives
    device: Device
    weights_files: Mapping[tuple[str, str], str | None]

    def make_trainer(self) -> TrialTrainer:
        """The trainer of this process; claims the worker's cores and its part of the GPU."""
        # It keeps TensorFlow's start-up messages out of the worker's log.
        import_tensorflow_quietly()
        return KerasTrainer(self)

    def end_on_disk(self, training: TrainingDirectory) -> Completed | None:
        """As ``TrainerFactory.end_on_disk``."""
        return end_on_disk(training, self.objectives)


class KerasTrainer:
    """Trains recipes with Keras, in one training session for the life of its process.

    Args:
        setup: What the trainings of the search have in common.
        dedicated_process: Whether this process exists for the trainer alone.
        clock: Measures the time of trainings; its wall time is compared with that of the driver's machine.

    Raises:
        RunError: The device cannot be claimed.
    """

    def __init__(
        self, setup: KerasTrainerFactory, *, dedicated_process: bool = True, clock: Clock = SYSTEM_CLOCK
    ) -> None:
        self._setup, self._clock = setup, clock
        self._open = contextlib.ExitStack()
        self._session = self._open.enter_context(
            TrainingSession.open(setup.data, device=setup.device, dedicated_process=dedicated_process, clock=clock)
        )

    def train(self, request: TrainingRequest, heartbeat: Heartbeat) -> Training:
        """As ``TrialTrainer.train``."""
        setup, clock = self._setup, self._clock
        directory = TrainingDirectory(setup.run / request.folder)
        backbone = request.recipe.backbone
        weights_file = setup.weights_files[(backbone.name, backbone.weights)]
        start_weights = None if request.start_weights is None else setup.run / request.start_weights
        try:
            self._session.fold(request.fold)
        except UserError as error:
            # Images that fail here fail for every training.
            raise TrialAbort("abort", str(error)) from error

        result = yield from self._session.epochs(
            request.recipe,
            directory.root,
            seed=request.seed,
            fold=request.fold,
            options=TrainOptions(
                objective=setup.objectives.primary,
                weights_file=None if weights_file is None else Path(weights_file),
                start_weights=start_weights if start_weights is not None and start_weights.is_file() else None,
                limits=request.limits.shifted(clock.now() - clock.wall()),
                average_last_epochs=True,
            ),
            should_stop=heartbeat,
        )
        return self._save(result, directory)

    def _save(self, result: TrialResult, directory: TrainingDirectory) -> TrainingEnd:
        artifact = result.to_artifact()
        directory.result.write(artifact)
        return completed_end(artifact, self._setup.objectives) if artifact.finished else Stopped()

    def close(self) -> None:
        """As ``TrialTrainer.close``."""
        self._open.close()
