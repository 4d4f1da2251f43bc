"""A recipe's augmentation as policies and mixing of its engine, and the shift suite that follows from it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from collections.abc import Sequence as SequenceOf
from typing import assert_never

import numpy as np

import bloodauto.config.recipe as grammar
from bloodauto.shift.overlap import training_coverage
from bloodauto.shift.suite import ShiftSuite
from bloodauto.transforms import (
    ApplyOperation,
    AugMix,
    BatchMixing,
    BatchPolicy,
    OneOf,
    PairMixing,
    Policy,
    RandAugment,
    Sequence,
    Symmetries,
    TrivialAugment,
    class_balancing_images,
)
from bloodauto.transforms.keras_cv_engine import KerasCVMixing, KerasCVPolicy, check_keras_cv
from bloodauto.types import Images, Labels


def policy_of(augmentation: grammar.Augmentation) -> Policy:
    """The policy of our own engine, whatever engine the recipe names; without mixing.

    Args:
        augmentation: Of a recipe or a stage.
    """
    policies: list[Policy] = []
    # Before the geometric ones, so that these become one warp with those that RandAugment draws first.
    if augmentation.stain_jitter > 0:
        policies.append(_at_magnitude("stain_jitter", augmentation.stain_jitter))
    if augmentation.orientation:
        policies.append(Symmetries())
    if augmentation.framing > 0:
        policies += [_at_magnitude(name, augmentation.framing) for name in ("zoom", "translate")]
    if augmentation.rand_augment is not None:
        policies.append(RandAugment(augmentation.rand_augment))
    policies += [_step(step) for step in augmentation.steps]
    return with_probability(Sequence(tuple(policies)), augmentation.fraction)


def engine_policy_of(augmentation: grammar.Augmentation) -> BatchPolicy:
    """The policy of the engine that the recipe names; without mixing.

    Args:
        augmentation: Of a recipe or a stage.

    Raises:
        RecipeError: The engine is not installed, or lacks an operation.
    """
    if augmentation.engine == "bloodauto":
        return policy_of(augmentation)
    return KerasCVPolicy(augmentation)


def offline_policy_of(offline: grammar.Offline, engine: grammar.Engine) -> BatchPolicy:
    """The policy of offline augmentation; without mixing.

    Args:
        offline: Of a recipe or a stage.
        engine: Applies the steps.

    Raises:
        RecipeError: As ``engine_policy_of``.
    """
    return engine_policy_of(grammar.Augmentation(orientation=False, steps=offline.steps, engine=engine))


def policy_of_steps(steps: SequenceOf[grammar.Step]) -> Policy:
    """The policy that applies steps in their order."""
    return Sequence(tuple(_step(step) for step in steps))


def with_probability(policy: Policy, rate: float) -> Policy:
    """The policy on a random fraction ``rate`` of the images."""
    return policy if rate == 1.0 else OneOf((policy, Sequence(())), (rate, 1.0 - rate))


def _at_magnitude(operation: str, magnitude: float) -> Policy:
    return ApplyOperation(grammar.OperationStep(operation=operation, magnitude=magnitude))


def _step(step: grammar.Step) -> Policy:
    if isinstance(step, grammar.OperationStep):
        return ApplyOperation(step)
    if isinstance(step, grammar.RandAugmentStep):
        return with_probability(RandAugment(step.rand_augment), step.rate)
    if isinstance(step, grammar.TrivialAugmentStep):
        return with_probability(TrivialAugment(step.trivial_augment), step.rate)
    if isinstance(step, grammar.AugMixStep):
        return with_probability(AugMix(step.aug_mix), step.rate)
    if isinstance(step, grammar.OneOfStep):
        return with_probability(OneOf(tuple(_step(inner) for inner in step.one_of), step.weights), step.rate)
    if isinstance(step, grammar.SequenceStep):
        return with_probability(policy_of_steps(step.sequence), step.rate)
    assert_never(step)


def mixing_of(settings: grammar.MixingSettings | None, engine: grammar.Engine = "bloodauto") -> BatchMixing | None:
    """How images of a batch are mixed; None: not at all."""
    if settings is None:
        return None
    if engine == "keras_cv":
        return KerasCVMixing(settings)
    return PairMixing(settings)


def synthesised_images(
    images: Images, labels: Labels, settings: grammar.ClassSynthesis, rng: np.random.Generator
) -> tuple[Images, Labels]:
    """Synthetic images and labels that fill each class to the size of the largest; see ``class_balancing_images``."""
    policy, mixing = policy_of_steps(settings.steps), mixing_of(settings.mixing)
    return class_balancing_images(images, labels, policy=policy, mixing=mixing, rng=rng)


def check_augmentation(recipe: grammar.Recipe) -> None:
    """Checks that the engines of a recipe are installed and have its operations, which the grammar does not know.

    Args:
        recipe: The recipe.

    Raises:
        RecipeError: An engine is not installed, or lacks an operation.
    """
    blocks = {"augmentation": recipe.augmentation}
    for index, stage in enumerate(recipe.stages):
        if stage.augmentation is not None:
            blocks[f"stages.{index}.augmentation"] = stage.augmentation
    for path, block in blocks.items():
        if block.engine == "keras_cv":
            check_keras_cv(block, path)


def shift_suite_for(recipes: Iterable[grammar.Recipe], *, seed: int) -> ShiftSuite:
    """The shift suite that compares recipes fairly: corruptions that any of them trains on count less for all of them.

    Args:
        recipes: All recipes that are compared.
        seed: Of the suite.
    """
    policies = [policy for recipe in recipes for policy in _policies(recipe)]
    return ShiftSuite(seed=seed, covered_by_training=training_coverage(policies))


def _policies(recipe: grammar.Recipe) -> Iterator[Policy]:
    """All policies of a recipe: online, of single stages, offline, and of class synthesis."""
    for block in (recipe.augmentation, *(stage.augmentation for stage in recipe.stages)):
        if block is not None:
            yield policy_of(block)
            if block.offline is not None:
                yield policy_of_steps(block.offline.steps)
    if recipe.imbalance.synthesise is not None:
        yield policy_of_steps(recipe.imbalance.synthesise.steps)
