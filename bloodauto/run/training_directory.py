"""The directory of one training: a trial, a refit, a variant of a comparison, or a run of ``bloodauto train``."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Generic, Protocol, Self, TypeVar

from bloodauto.run.artifacts.evaluation import TtaPredictions, ValidationPredictions
from bloodauto.run.artifacts.training import (
    Checkpoint,
    NetworkWeights,
    TrainingFailure,
    TrainingHistory,
    TrainingResult,
    VariantOutcome,
    WorkerProcess,
)


class ReadableFile(Protocol):
    """What a class of a file must have; ``Artifact`` has it."""

    FILE: ClassVar[str]

    @classmethod
    def read(cls, path: Path) -> Self:
        """The file's content."""

    def write(self, path: Path) -> None:
        """Writes the file atomically."""


F = TypeVar("F", bound=ReadableFile)


@dataclass(frozen=True)
class ArtifactFile(Generic[F]):
    """One file of a directory and the class that reads and writes it.

    Attributes:
        path: where it lies.
        schema: its class.
    """

    path: Path
    schema: type[F]

    @property
    def exists(self) -> bool:
        """Whether the file is there."""
        return self.path.is_file()

    def read(self) -> F:
        """Reads the file.

        Raises:
            RunError: absent, or not what the class wrote.
        """
        return self.schema.read(self.path)

    def read_if_exists(self) -> F | None:
        """Reads the file; None where there is none.

        Raises:
            RunError: it is there, but not what the class wrote.
        """
        return self.read() if self.exists else None

    def write(self, value: F) -> None:
        """Writes the file atomically."""
        value.write(self.path)

    def delete(self) -> None:
        """Deletes the file if it is there."""
        self.path.unlink(missing_ok=True)


@dataclass(frozen=True)
class TrainingDirectory:
    """Typed access to the files of one training.

    Attributes:
        root: the directory.

    Example:
        >>> TrainingDirectory(Path("runs/first/trials/00003")).result.path.name
        'result.json'
    """

    root: Path

    def _file(self, schema: type[F]) -> ArtifactFile[F]:
        return ArtifactFile(self.root / schema.FILE, schema)

    @property
    def recipe(self) -> Path:
        """The recipe that was trained, YAML; read it with ``config.recipe.load_recipe``."""
        return self.root / "recipe.yaml"

    @property
    def history(self) -> ArtifactFile[TrainingHistory]:
        """Every epoch so far."""
        return self._file(TrainingHistory)

    @property
    def checkpoint(self) -> ArtifactFile[Checkpoint]:
        """The state after the last epoch."""
        return self._file(Checkpoint)

    @property
    def weights(self) -> ArtifactFile[NetworkWeights]:
        """The weights that are kept."""
        return self._file(NetworkWeights)

    @property
    def predictions(self) -> ArtifactFile[ValidationPredictions]:
        """Predictions for the validation images."""
        return self._file(ValidationPredictions)

    @property
    def predictions_tta(self) -> ArtifactFile[TtaPredictions]:
        """Predictions averaged over the recipe's TTA transforms."""
        return self._file(TtaPredictions)

    @property
    def result(self) -> ArtifactFile[TrainingResult]:
        """The result of the training."""
        return self._file(TrainingResult)

    @property
    def failure(self) -> ArtifactFile[TrainingFailure]:
        """Why the training failed."""
        return self._file(TrainingFailure)

    @property
    def process(self) -> ArtifactFile[WorkerProcess]:
        """Which process trains here."""
        return self._file(WorkerProcess)

    @property
    def outcome(self) -> ArtifactFile[VariantOutcome]:
        """How a comparison's variant ended."""
        return self._file(VariantOutcome)

    @property
    def traceback(self) -> Path:
        """The traceback of an unexpected error, text."""
        return self.root / "error.txt"

    @property
    def heartbeat(self) -> Path:
        """An empty file whose modification time says when the training last did something."""
        return self.root / "heartbeat"

    @property
    def stop_request(self) -> Path:
        """An empty file with which the driver asks the training to save its state and leave at once."""
        return self.root / "stop"

    def request_stop(self) -> None:
        """Asks the process that trains here to save its state and leave; a new training here withdraws it."""
        with contextlib.suppress(OSError):
            # A full disk or a removed folder: then what was saved last has to do.
            self.stop_request.touch()

    @property
    def is_saved_as_requested(self) -> bool:
        """Whether the state was saved after ``request_stop``; also where there is no such request."""
        try:
            requested_ns = self.stop_request.stat().st_mtime_ns
            return self.checkpoint.path.stat().st_mtime_ns >= requested_ns
        except OSError:
            return not self.stop_request.exists()

    @property
    def has_trained(self) -> bool:
        """Whether there are weights of a training here, whatever ended it."""
        return self.recipe.is_file() and (self.weights.exists or self.checkpoint.exists)

    @property
    def has_candidate_files(self) -> bool:
        """Whether everything is there that a member of an ensemble needs."""
        files = (self.weights.path, self.predictions.path, self.result.path)
        return self.recipe.is_file() and all(path.is_file() for path in files)
