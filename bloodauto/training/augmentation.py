"""A recipe's augmentation -> policies, mixing and offline augmentation of the engine it names."""

from __future__ import annotations

from collections.abc import Sequence as SequenceOf
from typing import assert_never

import numpy as np

import bloodauto.config.recipe as grammar
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


def policy_of(augmentation: grammar.Augmentation) -> Policy:
    """What our engine does to each image each time it is seen, mixing left out, whatever engine the block names."""
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
    """What the engine that the block names does to each image each time it is seen.

    Raises:
        RecipeError: the engine is not installed, or has not what the block asks of it.
    """
    if augmentation.engine == "bloodauto":
        return policy_of(augmentation)
    from bloodauto.transforms.keras_cv_engine import KerasCVPolicy

    return KerasCVPolicy(augmentation)


def offline_policy_of(offline: grammar.Offline, engine: grammar.Engine) -> BatchPolicy:
    """How offline images are made, mixing left out.

    Raises:
        RecipeError: as ``engine_policy_of``.
    """
    return engine_policy_of(grammar.Augmentation(orientation=False, steps=offline.steps, engine=engine))


def policy_of_steps(steps: SequenceOf[grammar.Step]) -> Policy:
    """Steps in their order."""
    return Sequence(tuple(_step(step) for step in steps))


def with_probability(policy: Policy, rate: float) -> Policy:
    """The policy on a share of the images, drawn anew each time; the others stay as they are."""
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
    """How images of a batch are joined; None for not at all."""
    if settings is None:
        return None
    if engine == "keras_cv":
        from bloodauto.transforms.keras_cv_engine import KerasCVMixing

        return KerasCVMixing(settings)
    return PairMixing(settings)


def synthesised_images(
    images: np.ndarray, labels: np.ndarray, settings: grammar.ClassSynthesis, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels that fill up each class to the size of the largest; see ``bloodauto.transforms.class_balancing_images``."""
    policy, mixing = policy_of_steps(settings.steps), mixing_of(settings.mixing)
    return class_balancing_images(images, labels, policy=policy, mixing=mixing, rng=rng)


def check_augmentation(recipe: grammar.Recipe) -> None:
    """Checks what the grammar cannot: that the engine a block names is installed and has what the block asks of it.

    Raises:
        RecipeError: it is not, or has not.
    """
    blocks = {"augmentation": recipe.augmentation}
    for index, stage in enumerate(recipe.stages):
        if stage.augmentation is not None:
            blocks[f"stages.{index}.augmentation"] = stage.augmentation
    for path, block in blocks.items():
        if block.engine == "keras_cv":
            from bloodauto.transforms.keras_cv_engine import check_keras_cv

            check_keras_cv(block, path)
