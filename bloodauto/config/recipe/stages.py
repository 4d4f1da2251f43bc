"""The stages of a training: what is unfrozen, how it is optimised, for how long."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from bloodauto.config.base_model import ListField, StrictModel
from bloodauto.config.recipe.augmentation import Augmentation

#: What an epoch can be told by, on the validation images; ``objective`` is what the search maximises.
EpochMetric = Literal["objective", "accuracy", "loss", "balanced_accuracy", "macro_f1"]


class LastBlocks(StrictModel):
    """Unfreezes the backbone's last ``blocks`` blocks; a block is a stretch of layers the registry names."""

    blocks: Annotated[int, Field(ge=1, le=32)]
    kinds: Annotated[tuple[Literal["conv", "dense"], ...], ListField] = ()


class LastLayers(StrictModel):
    """Unfreezes the backbone's last ``layers`` layers; ``kinds`` restricts it to convolution and dense layers."""

    layers: Annotated[int, Field(ge=1, le=2000)]
    kinds: Annotated[tuple[Literal["conv", "dense"], ...], ListField] = ()


class Optimizer(StrictModel):
    """How a step follows from a gradient.

    ``weight_decay`` is decoupled (Loshchilov & Hutter, arXiv:1711.05101) for every optimizer. ``momentum`` is for sgd
    (Nesterov's; 0.9 when absent) and rmsprop (none when absent). ``clip_norm``: the longest gradient over all weights
    together; a longer one is shortened to it.
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


class Schedule(StrictModel):
    """The learning rate over one stage, as a factor of the optimizer's ``learning_rate``.

    ``warmup_fraction``: share of the stage with a linear rise. After it ``constant`` stays; ``cosine`` falls to
    ``final_factor`` along a half cosine, ``exponential`` geometrically, ``step`` in ``steps`` equal ratios at equal distances.
    All these follow the stage's progress, whether epochs or a time limit end it.

    ``plateau`` multiplies by ``factor`` whenever ``metric`` has not improved for ``patience_epochs`` epochs, down to
    ``final_factor``.
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
                given = getattr(self, field) is not None
                if self.name == owner and not given:
                    raise ValueError(f"the schedule {owner} needs {field}")
                if self.name != owner and given:
                    raise ValueError(f"{field} belongs to the schedule {owner}, not to {self.name}; leave it out")
        return self


class EarlyStopping(StrictModel):
    """Ends the stage when ``metric`` has not improved for ``patience_epochs`` epochs."""

    metric: EpochMetric = "objective"
    patience_epochs: Annotated[int, Field(ge=1, le=1000)]


class Stage(StrictModel):
    """One stretch of training: what is unfrozen, how it is optimised, for how long.

    ``layer_decay``: discriminative learning rates (Howard & Ruder, arXiv:1801.06146): the head learns at the full rate, the
    backbone's last block at ``layer_decay`` times it, the block before at ``layer_decay`` squared, and so on; 1 is off.
    ``early_stopping``: see there; absent means never.
    ``restore_best``: what follows starts from the stage's best epoch by the metric of its early stopping, or by the objective
    without one; otherwise from its last. After the last stage the trial keeps its best epoch by the objective, or the last.
    ``weight_averaging``: what is judged and kept is an average of the weights over the stage's steps. ``ema``: all steps, the
    later the more; ``swa``: the steps of the stage's last quarter, evenly. See ``trial/averaging.py``.
    ``augmentation``: a whole block that takes the place of the recipe's for this stage alone.
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
