"""The files of a training directory, and the notes of the process that trains."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from bloodauto.run.artifacts.arrays import ArrayArtifact, Variable
from bloodauto.run.artifacts.base import Artifact, Count, Fraction, Record, Seconds
from bloodauto.run.artifacts.evaluation import Metrics, ValidationFigures


class EpochReport(Record):
    """What one epoch did.

    Attributes:
        epoch: 1-based, over all stages.
        stage: 0-based.
        seconds: wall seconds of the epoch, evaluation included.
        evaluation_seconds: wall seconds of its evaluation.
        train_loss: on augmented training images during the epoch.
        train_accuracy: likewise, 0-1.
        learning_rate: at the epoch's end.
        loss: on clean validation images, nats.
        accuracy: on clean validation images, 0-1.
        balanced_accuracy: likewise.
        macro_f1: likewise.
        shift: score of the shift suite, 0-1.
        objective: what the search maximises, 0-1.
        data_wait_fraction: fraction of the training time spent waiting for images, 0-1.
        stage_progress: fraction of the stage that is done at the epoch's end, 0-1.
        epoch_fraction: steps over those of a whole epoch, above 0 and up to 1; less than 1 where time ended the epoch, or
            where an earlier session had done a part of it: ``seconds`` and this are of the session that ended the epoch.
        is_resumed: whether an earlier session had done a part of the epoch; then what it took says little of an epoch.
    """

    epoch: Annotated[int, Field(ge=1)]
    stage: Count
    seconds: Seconds
    evaluation_seconds: Seconds
    train_loss: float
    train_accuracy: Fraction
    learning_rate: Annotated[float, Field(ge=0)]
    loss: float
    accuracy: Fraction
    balanced_accuracy: Fraction
    macro_f1: Fraction
    shift: Fraction
    objective: Fraction
    data_wait_fraction: Annotated[float, Field(ge=0)]
    stage_progress: Fraction
    epoch_fraction: Annotated[float, Field(gt=0, le=1)] = 1.0
    is_resumed: bool = False


class TrainingHistory(Artifact):
    """``history.json``: every epoch of a training so far."""

    FILE = "history.json"

    epochs: tuple[EpochReport, ...]


class AveragedEpochs(Record):
    """The average of the weights after the last epochs, compared with the weights of the best epoch.

    Attributes:
        epochs: how many were averaged.
        objective: of the average, on the validation subset that every epoch is evaluated on, 0-1.
        kept_objective: of the best epoch's weights, likewise.
        adopted: whether the average was better and is kept.
    """

    epochs: Annotated[int, Field(ge=1)]
    objective: Fraction
    kept_objective: Fraction
    adopted: bool


class TrainingResult(Artifact):
    """``result.json``: the result of a training.

    Attributes:
        finished: it completed all stages or ended by early stopping; False when it was told to stop.
        objective: of the kept weights on all validation images, 0-1.
        metrics: of the kept weights on clean validation images.
        shift: score of the shift suite, 0-1.
        latency_ms: milliseconds for one image in a batch on the training's device; None where it was not measured.
        target_estimate: estimated accuracy on unlabelled target images, 0-1; None without such images.
        epochs: how many epochs it trained.
        parameters: of the whole network.
        seconds: wall seconds of training and evaluation, start-up excluded.
        averaged_epochs: None where the recipe averages weights itself, too few epochs were in the last quarter, or the
            training did not finish.
        data_wait_fraction: fraction of all training time spent waiting for images, 0-1.
        validation: what the report draws; None where no such figures were computed.
    """

    FILE = "result.json"

    finished: bool
    objective: Fraction
    metrics: Metrics
    shift: Fraction
    latency_ms: Annotated[float, Field(ge=0)] | None
    target_estimate: Fraction | None
    epochs: Count
    parameters: Count
    seconds: Seconds
    averaged_epochs: AveragedEpochs | None
    data_wait_fraction: Annotated[float, Field(ge=0)]
    validation: ValidationFigures | None = None


class NetworkWeights(ArrayArtifact):
    """``best.npz``: a network's variables in its own order; of the kept epoch as a rule."""

    FILE = "best.npz"
    COMPRESSED: ClassVar[bool] = False

    weights: tuple[Variable, ...]


class Checkpoint(ArrayArtifact):
    """``checkpoint.npz``: everything needed to resume a training, after an epoch or within one.

    Attributes:
        weights: the network's variables in its own order.
        optimizer: the optimizer's variables in its own order; empty when the next epoch starts a new stage.
        history: all epochs so far.
        seconds: training time so far.
        progress: fraction of the whole recipe that is done, 0-1.
        stage: the stage of the next epoch.
        complete: nothing is left to train.
        averages: of the weights over the stage's steps, as ``WeightAverage`` has them.
        average_steps: how many steps were averaged.
        stage_best: the weights of the stage's best epoch so far, where the next stage will start from them.
        epoch_steps: how many steps of the next epoch are done.
        epoch_metrics: the running means of loss and accuracy over these steps, as Keras keeps them.
        dropout: the states of the random generators of dropout after these steps.
    """

    FILE = "checkpoint.npz"
    FORMAT_VERSION: ClassVar[int] = 3
    MEND = "Delete it to start this training over."
    COMPRESSED: ClassVar[bool] = False

    weights: tuple[Variable, ...]
    optimizer: tuple[Variable, ...]
    history: tuple[EpochReport, ...]
    seconds: Seconds
    progress: Annotated[float, Field(ge=0)]
    stage: Count
    complete: bool
    averages: tuple[Variable, ...] = ()
    average_steps: Count = 0
    stage_best: tuple[Variable, ...] = ()
    epoch_steps: Count = 0
    epoch_metrics: tuple[Variable, ...] = ()
    dropout: tuple[Variable, ...] = ()


class WorkerProcess(Artifact):
    """``worker.json``: which process trains in a directory.

    Attributes:
        pid: of the process on its node.
        node_id: Ray's id of the node.
    """

    FILE = "worker.json"

    pid: Count
    node_id: str


class TrainingFailure(Artifact):
    """``failure.json``: why a training failed.

    Attributes:
        reason: a short word, for example ``nan`` or ``out_of_memory``.
        message: a sentence.
    """

    FILE = "failure.json"

    reason: str
    message: str


class VariantOutcome(Artifact):
    """``outcome.json``: how the training of one variant of a comparison ended.

    Attributes:
        status: ``finished`` all epochs, early stopping or its share of the time; ``stopped`` by the end of the budget; or
            ``failed``.
        message: why it failed; empty otherwise.
    """

    FILE = "outcome.json"

    status: Literal["finished", "stopped", "failed"]
    message: str = ""
