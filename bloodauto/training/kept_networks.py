"""Networks with their traced steps, kept for the next training of the same architecture in this process."""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np
from numpy.typing import NDArray

from bloodauto.config.recipe import Backbone, Head, Loss, Recipe, Stage
from bloodauto.models.device import DeviceSettings, free_networks
from bloodauto.models.heads import dense_dropout_rate
from bloodauto.models.initial_weights import draw_initial_weights, seed_dropout
from bloodauto.models.network import apply_unfreeze, backbone_of, build_network, flat_layers
from bloodauto.models.step_settings import AdjustableDropout
from bloodauto.run.artifacts import NetworkWeights
from bloodauto.training.averaging import WeightAverage
from bloodauto.training.fused_optimizer import FusedOptimizer
from bloodauto.training.losses import AdjustableLoss
from bloodauto.training.micro_batches import MicroBatchModel
from bloodauto.training.optimizers import learning_rate_multipliers

#: Batch normalisation's statistics must follow within a short fine-tuning; MobileNetV2's own 0.999 would still hold a third
#: of ImageNet's after a thousand steps.
_MAX_BATCH_NORM_MOMENTUM = 0.9
#: Traced steps that are kept. ``docs/experiments/2026-11-27-trial-turnaround.md`` has the memory that one takes.
MAX_STEPS = 8


@dataclass(frozen=True)
class Architecture:
    """What decides the graph of a network, and where its weights start.

    Attributes:
        recipe: The recipe; its rates of dropout do not count.
        num_classes: Number of classes.
        image_shape_px: Height and width of the images.
        weights_file: Pre-trained weights of the backbone; None: random weights.
        settings: Compilation and precision.
    """

    recipe: Recipe
    num_classes: int
    image_shape_px: tuple[int, int]
    weights_file: Path | None
    settings: DeviceSettings

    @property
    def key(self) -> Hashable:
        """Equal for architectures that share a network."""
        recipe = self.recipe
        return (
            recipe.input,
            recipe.backbone,
            recipe.head.replace(dropout=0.0, dense_dropout=None),
            self.num_classes,
            self.image_shape_px,
            self.weights_file,
            self.settings.precision,
            self.settings.jit_compile,
        )

    def build(self) -> TrainableNetwork:
        """Builds the network, with Keras' dtype policy as the settings have it.

        Raises:
            WeightsError: The pre-trained weights do not fit the network.
        """
        keras.config.set_dtype_policy(self.settings.precision)
        network = build_network(
            self.recipe,
            num_classes=self.num_classes,
            image_shape_px=self.image_shape_px,
            weights_file=self.weights_file,
        )
        return TrainableNetwork(
            network,
            self.recipe.backbone,
            num_classes=self.num_classes,
            has_pretrained_backbone=self.weights_file is not None,
            jit_compile=self.settings.jit_compile,
        )


class TrainingStep:
    """A network compiled for one choice of trained weights, with everything that belongs to that choice.

    Attributes:
        model: Shares its layers with the network; its step is traced at its first use.
    """

    def __init__(
        self, network: keras.Model, stage: Stage, loss: AdjustableLoss, *, num_classes: int, num_micro_batches: int
    ) -> None:
        self._network = network
        model = MicroBatchModel(network.inputs, network.outputs, name=network.name)
        model.num_micro_batches = num_micro_batches
        self.model: keras.Model = model
        self.model.loss_settings = loss.settings
        self.model.compile(
            optimizer=FusedOptimizer(stage.optimizer),
            loss=loss,
            weighted_metrics=["accuracy"],
            # XLA needs parts of a size that is known when it compiles.
            jit_compile=network.jit_compile and num_micro_batches == 1,
        )
        # Without its variables, those of the optimizer and of the metrics, the first step is traced a second time.
        self.model.optimizer.build(self.model.trainable_variables)
        targets = np.zeros((1, num_classes), np.float32)
        self.model.compute_metrics(None, targets, targets, sample_weight=np.ones(1, np.float32))
        self.model.reset_metrics()
        self._scale_state = [
            (variable, variable.numpy())
            for variable in self.model.optimizer.variables
            if self.model.optimizer is not self.optimizer
            and not any(variable is inner for inner in self.optimizer.variables)
        ]
        self._average: WeightAverage | None = None

    @property
    def optimizer(self) -> FusedOptimizer:
        """The optimizer; half precision wraps it in one that scales the loss."""
        optimizer = getattr(self.model.optimizer, "inner_optimizer", self.model.optimizer)
        assert isinstance(optimizer, FusedOptimizer), "the step was compiled with one"
        return optimizer

    def begin(self, stage: Stage, rate_multipliers: Sequence[float] | None) -> None:
        """Starts over, as a step that was compiled anew would.

        Args:
            stage: Says how to optimise.
            rate_multipliers: As of ``FusedOptimizer``.
        """
        self.optimizer.configure(stage.optimizer, rate_multipliers)
        for variable, value in self._scale_state:
            variable.assign(value)
        self.model.reset_metrics()

    @property
    def optimizer_state(self) -> list[keras.Variable]:
        """What a training changes in the optimizer, the scale of the loss included."""
        return [*self.optimizer.state, *(variable for variable, _ in self._scale_state)]

    def average(
        self, kind: Literal["ema", "swa"], *, averages: Sequence[NDArray[Any]] = (), steps: int = 0
    ) -> WeightAverage:
        """An average of the trained weights that starts now; there is one at a time.

        Args:
            kind: As of ``WeightAverage``.
            averages: As of ``WeightAverage``.
            steps: As of ``WeightAverage``.
        """
        if self._average is None:
            self._average = WeightAverage(self._network, kind, averages=averages, steps=steps)
        else:
            self._average.restart(kind, averages=averages, steps=steps)
        return self._average


class TrainableNetwork:
    """A network and the steps that were compiled for it.

    Args:
        network: Made by ``build_network`` for training.
        backbone: Its backbone.
        num_classes: Number of classes.
        has_pretrained_backbone: Whether the backbone's weights are pre-trained; otherwise each training draws them.
        jit_compile: Whether XLA compiles its functions.

    Attributes:
        network: The network.
    """

    def __init__(
        self,
        network: keras.Model,
        backbone: Backbone,
        *,
        num_classes: int,
        has_pretrained_backbone: bool,
        jit_compile: bool,
    ) -> None:
        self.network, self._backbone, self._num_classes = network, backbone, num_classes
        network.jit_compile = jit_compile
        for layer in network._flatten_layers():
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.momentum = min(layer.momentum, _MAX_BATCH_NORM_MOMENTUM)
        self._built_weights = network.get_weights()
        base = backbone_of(network)
        drawn = [layer for layer in network.layers if layer is not base]
        self._drawn_layers = drawn if has_pretrained_backbone else [*flat_layers(base), *drawn]
        self._loss: AdjustableLoss | None = None
        self._steps: OrderedDict[Hashable, TrainingStep] = OrderedDict()

    @property
    def num_steps(self) -> int:
        """How many compiled steps it has."""
        return len(self._steps)

    def drop_oldest_step(self) -> None:
        """Drops the step that has not been used for longest."""
        self._steps.popitem(last=False)

    def begin_training(self, head: Head, seed: int, start_weights: Path | None) -> None:
        """Gives the network the weights, rates and seeds that a training starts with, whatever was trained before.

        Args:
            head: Of the recipe; has the rates of dropout.
            seed: Of the training.
            start_weights: Weights of the whole network; None: pre-trained and random ones.

        Raises:
            RunError: The weights cannot be read.
        """
        weights_seed, dropout_seed = np.random.SeedSequence(seed, spawn_key=(0, 0, 0, 2)).spawn(2)
        if start_weights is None:
            self.network.set_weights(self._built_weights)
            draw_initial_weights(self._drawn_layers, np.random.default_rng(weights_seed))
        else:
            self.network.set_weights(NetworkWeights.read(start_weights).weights)
        seed_dropout(self.network, np.random.default_rng(dropout_seed))
        for layer in self.network.layers:
            if isinstance(layer, AdjustableDropout):
                layer.rate_setting.assign(head.dropout if layer.name == "dropout" else dense_dropout_rate(head))

    def begin_stage(self, stage: Stage, loss: Loss, *, num_micro_batches: int = 1) -> TrainingStep:
        """Unfreezes, and returns the step for what is trained then.

        Args:
            stage: Says what is trained and how.
            loss: What is minimised.
            num_micro_batches: In how many parts a step takes its batch.
        """
        apply_unfreeze(self.network, self._backbone, stage)
        multipliers = None
        if stage.layer_decay < 1:
            multipliers = learning_rate_multipliers(self.network, self._backbone, stage.layer_decay)
        if self._loss is None:
            self._loss = AdjustableLoss(loss, self._num_classes)
        self._loss.configure(loss)
        key = (num_micro_batches, *(layer.trainable for layer in self.network._flatten_layers()))
        if key not in self._steps:
            self._steps[key] = TrainingStep(
                self.network,
                stage,
                self._loss,
                num_classes=self._num_classes,
                num_micro_batches=num_micro_batches,
            )
        self._steps.move_to_end(key)
        self._steps[key].begin(stage, multipliers)
        return self._steps[key]


class KeptNetworks:
    """The networks of a process, by architecture.

    Tracing a step takes seconds, and a step that was traced serves every training that differs in what is a variable: weights,
    rates, decay, optimizer, dropout, loss, seed. A training with a kept network gives the same numbers as one with a new
    network.

    Memory: at most ``max_steps`` traced steps; the network that was not used for longest goes first. Frees nothing else:
    Keras' ``clear_session``, like its ``set_random_seed``, makes TensorFlow optimise every traced graph again.

    Args:
        max_steps: How many steps are kept when a training has ended.

    Example:
        kept = KeptNetworks()
        with kept.borrow(architecture) as trainable:
            trainable.begin_training(recipe.head, seed=0, start_weights=None)
    """

    def __init__(self, max_steps: int = MAX_STEPS) -> None:
        self._max_steps = max_steps
        self._networks: OrderedDict[Hashable, TrainableNetwork] = OrderedDict()

    @contextlib.contextmanager
    def borrow(self, architecture: Architecture) -> Iterator[TrainableNetwork]:
        """The network of an architecture, for one training; built where none is kept, or where another training has it.

        Args:
            architecture: What is trained.

        Raises:
            WeightsError: The pre-trained weights do not fit the network.
        """
        key = architecture.key
        trainable = self._networks.pop(key, None)
        if trainable is None:
            trainable = architecture.build()
        try:
            yield trainable
        finally:
            self._networks[key] = trainable
            del trainable
            self._drop_surplus()

    def _drop_surplus(self) -> None:
        dropped = False
        while sum(trainable.num_steps for trainable in self._networks.values()) > self._max_steps:
            dropped = True
            if len(self._networks) > 1:
                self._networks.popitem(last=False)
            else:
                next(iter(self._networks.values())).drop_oldest_step()
        if dropped:
            free_networks()

    def clear(self) -> None:
        """Frees all networks."""
        self._networks.clear()
        free_networks()
