"""The stages of a training: what is unfrozen, how it is optimised, for how long."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from bloodauto.config.recipe.augmentation import Augmentation
from bloodauto.config.validation import ListField
from bloodauto.run.artifacts.base import Record

#: A score of an epoch on the validation images; ``objective`` is what the search maximises.
EpochMetric = Literal["objective", "accuracy", "loss", "balanced_accuracy", "macro_f1"]


class LastBlocks(Record):
    """Unfreezes the backbone's last blocks.

    Attributes:
        blocks: How many; a block is a group of layers that the table of backbones defines.
        kinds: Only layers of these kinds; empty: all.
    """

    blocks: Annotated[int, Field(ge=1, le=32)]
    kinds: Annotated[tuple[Literal["conv", "dense"], ...], ListField] = ()


class LastLayers(Record):
    """Unfreezes the backbone's last layers.

    Attributes:
        layers: How many.
        kinds: Only layers of these kinds; empty: all.
    """

    layers: Annotated[int, Field(ge=1, le=2000)]
    kinds: Annotated[tuple[Literal["conv", "dense"], ...], ListField] = ()


class Optimizer(Record):
    """How a step follows from a gradient.

    Attributes:
        name: Which optimizer.
        learning_rate: The peak of the schedule.
        weight_decay: Decoupled (Loshchilov and Hutter, arXiv:1711.05101) for every optimizer.
        momentum: Of sgd (Nesterov's; absent: 0.9) and rmsprop (absent: none).
        clip_norm: Largest norm of the gradient over all weights together; a larger gradient is scaled down to it.
    """

    name: Literal["adam", "adamw", "nadam", "lion", "sgd", "rmsprop"] = "adamw"
    learning_rate: Annotated[float, Field(gt=0.0, le=1.0)]
    weight_decay: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    momentum: Annotated[float, Field(ge=0.0, lt=1.0)] | None = None
    clip_norm: Annotated[float, Field(gt=0.0)] | None = None

    @model_validator(mode="after")
    def _check_momentum(self) -> Optimizer:
        if self.momentum is not None and self.name not in ("sgd", "rmsprop"):
            raise ValueError(f"momentum belongs to sgd and rmsprop; {self.name} has its own, leave it out")
        return self


class Schedule(Record):
    """The learning rate over one stage, as a factor of the optimizer's ``learning_rate``.

    All but ``plateau`` follow the stage's progress, whether epochs or a time limit end it.

    Attributes:
        name: ``constant``; ``cosine``: to ``final_factor`` along a half cosine; ``exponential``: geometrically; ``step``: in
            ``steps`` equal ratios at equal distances; ``plateau``: times ``factor`` whenever ``metric`` has not improved for
            ``patience_epochs`` epochs, down to ``final_factor``.
        warmup_fraction: Fraction of the stage in which the rate rises linearly.
        final_factor: The factor at the end of the stage.
        steps: Of ``step`` alone.
        metric: Of ``plateau`` alone.
        factor: Of ``plateau`` alone.
        patience_epochs: Of ``plateau`` alone.
    """

    name: Literal["constant", "cosine", "exponential", "step", "plateau"] = "cosine"
    warmup_fraction: Annotated[float, Field(ge=0.0, le=0.5)] = 0.0
    final_factor: Annotated[float, Field(ge=0.0, le=1.0)] = 0.01
    steps: Annotated[int, Field(ge=1, le=100)] | None = None
    metric: EpochMetric | None = None
    factor: Annotated[float, Field(gt=0.0, lt=1.0)] | None = None
    patience_epochs: Annotated[int, Field(ge=1, le=1000)] | None = None

    @model_validator(mode="after")
    def _check_dependent_fields(self) -> Schedule:
        for owner, fields in (("step", ("steps",)), ("plateau", ("metric", "factor", "patience_epochs"))):
            for field in fields:
                is_set = getattr(self, field) is not None
                if self.name == owner and not is_set:
                    raise ValueError(f"the schedule {owner} needs {field}")
                if self.name != owner and is_set:
                    raise ValueError(f"{field} belongs to the schedule {owner}, not to {self.name}; leave it out")
        return self


class EarlyStopping(Record):
    """Ends the stage when a metric has not improved for some epochs.

    Attributes:
        metric: The metric.
        patience_epochs: The epochs.
    """

    metric: EpochMetric = "objective"
    patience_epochs: Annotated[int, Field(ge=1, le=1000)]


class Stage(Record):
    """One part of a training: what is unfrozen, how it is optimised, for how long.

    After the last stage the trial keeps its best epoch by the objective, or the last where ``restore_best`` is false.

    Attributes:
        epochs: The most epochs.
        unfreeze: What of the backbone is trained; the head always is.
        layer_decay: Discriminative learning rates (Howard and Ruder, arXiv:1801.06146): the head is trained at the full rate,
            the backbone's last block at ``layer_decay`` times it, the block before at ``layer_decay`` squared, and so on; 1 is
            off.
        optimizer: The optimizer.
        schedule: The learning rate over the stage.
        early_stopping: When the stage ends early; absent: never.
        restore_best: Whether the next stage starts from the stage's best epoch, by the metric of its early stopping or by the
            objective without one; otherwise from its last.
        weight_averaging: Whether an average of the weights over the stage's steps is evaluated and kept. ``ema``: all
            steps, later ones weighted more; ``swa``: the steps of the stage's last quarter, weighted equally.
        augmentation: Replaces the recipe's augmentation in this stage.
    """

    epochs: Annotated[int, Field(ge=1, le=1000)]
    unfreeze: Literal["none", "all"] | LastBlocks | LastLayers = "all"
    layer_decay: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    optimizer: Optimizer
    schedule: Schedule = Schedule()
    early_stopping: EarlyStopping | None = None
    restore_best: bool = True
    weight_averaging: Literal["none", "ema", "swa"] = "none"
    augmentation: Augmentation | None = None
