"""How long each variant of a comparison with a budget may train."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bloodauto.clock import Clock
from bloodauto.config.recipe import Recipe, tta_weights
from bloodauto.errors import BudgetError
from bloodauto.evaluation.evaluator import Evaluator
from bloodauto.evaluation.fold_data import FoldData
from bloodauto.models.device import DeviceSettings
from bloodauto.models.network import build_network
from bloodauto.run.artifacts.comparison import TimeAllocation

#: Factor on seconds that are measured once, on a machine that does other things too.
MARGIN = 1.3


@dataclass(frozen=True)
class StepSeconds:
    """Measured wall-clock seconds of one network.

    Attributes:
        build: Building it.
        first_step: Its first training step, which builds the graph.
        evaluation: Its evaluation on all validation images, clean and shifted.
        total: The whole measurement.
    """

    build: float
    first_step: float
    evaluation: float
    total: float


def measure_steps(recipe: Recipe, fold_data: FoldData, device: DeviceSettings, clock: Clock) -> StepSeconds:
    """Measures a network of a recipe.

    Args:
        recipe: Its backbone, head and batch size count.
        fold_data: The images.
        device: Compilation of the training step.
        clock: The time.

    Returns:
        Wall-clock seconds.
    """
    started = clock.now()
    network = build_network(
        recipe, num_classes=fold_data.num_classes, image_shape_px=fold_data.image_shape_px, weights_file=None
    )
    built = clock.now()
    network.compile(optimizer="adam", loss="categorical_crossentropy", jit_compile=device.jit_compile)
    batch = fold_data.train_images[np.arange(recipe.batch_size) % len(fold_data.train_images)]
    network.train_on_batch(batch, np.eye(fold_data.num_classes, dtype=np.float32)[[0] * recipe.batch_size])
    stepped = clock.now()
    Evaluator(fold_data, clock).evaluate(network)
    ended = clock.now()
    return StepSeconds(built - started, stepped - built, ended - stepped, ended - started)


def allocate_time(
    recipes: Sequence[Recipe], steps: StepSeconds, *, budget: str, budget_device_seconds: float, devices: float
) -> TimeAllocation:
    """Divides a budget: what building and evaluation of all variants leave is divided equally among their trainings.

    Args:
        recipes: The variants.
        steps: Seconds of one of them.
        budget: The budget as it was given, for the message.
        budget_device_seconds: The budget.
        devices: Devices that are reserved.

    Returns:
        Wall-clock seconds.

    Raises:
        BudgetError: Too small for any training.
    """
    passes = [len(tta_weights(recipe.tta_transforms)) for recipe in recipes]
    # Building, the evaluations of the last epoch and of the best one, and one per TTA transform where there are several.
    overhead = tuple(MARGIN * (steps.build + steps.evaluation * (2 + (count if count > 1 else 0))) for count in passes)
    training = (budget_device_seconds / devices - steps.total - sum(overhead)) / len(recipes)
    # A stage's first step cannot be interrupted.
    least = MARGIN * steps.first_step * max(len(recipe.stages) for recipe in recipes)
    if training < least:
        needed = devices * (steps.total + sum(overhead) + len(recipes) * least)
        raise BudgetError(
            f"--budget {budget}: expected at least {needed:.0f} device-seconds, which is what building, starting and "
            f"evaluating {len(recipes)} variants takes on these images. Give more, or fewer --images."
        )
    return TimeAllocation(
        training_seconds=training,
        evaluation_seconds=steps.evaluation,
        measurement_seconds=steps.total,
        overhead_seconds=overhead,
    )


def seconds_until_end_of(index: int, allocation: TimeAllocation) -> float:
    """Wall-clock seconds from the start of a comparison to the end of a variant, by 0-based index."""
    return (
        allocation.measurement_seconds
        + sum(allocation.overhead_seconds[: index + 1])
        + (index + 1) * allocation.training_seconds
    )
