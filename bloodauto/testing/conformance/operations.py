"""What every image operation promises: uint8 in and out, no effect where it says so, an effect that grows, the same draws."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import numpy as np

from bloodauto.config.recipe import OperationStep, StrengthSampling
from bloodauto.shift.corruptions import find_family
from bloodauto.testing.conformance import sample_cells
from bloodauto.transforms.pipeline import BatchPipeline, BatchWorkers
from bloodauto.transforms.policies import ApplyOperation
from bloodauto.transforms.processes import BatchAugmenter
from bloodauto.transforms.registry import Operation
from bloodauto.types import Images

#: Shapes of one pixel, one row, one column, odd and even sides, height and width apart.
_SHAPES = ((1, 1), (1, 7), (9, 1), (28, 28), (33, 20), (60, 97))
_SIDE = 40
_MAGNITUDES = (0.0, 0.1, 0.3, 0.6, 1.0)


def _at_magnitude(operation: Operation, magnitude: float, rate: float = 1.0) -> ApplyOperation:
    strength = {"magnitude": magnitude} if operation.has_strength else {}
    return ApplyOperation(OperationStep.model_validate({"operation": operation.name, "rate": rate, **strength}))


def _at_value(operation: Operation, value: float) -> ApplyOperation:
    assert operation.spec.range is not None
    return ApplyOperation(
        OperationStep.model_validate(
            {"operation": operation.name, f"range_{operation.spec.range.unit}": [value, value]}
        )
    )


def _policies(operation: Operation) -> Iterator[ApplyOperation]:
    """The weakest, a middle and the strongest magnitude, and the ends of the range."""
    yield from (_at_magnitude(operation, magnitude) for magnitude in (0.0, 0.5, 1.0))
    if operation.spec.range is not None:
        yield from (
            _at_value(operation, value) for value in (operation.spec.range.lowest, operation.spec.range.highest)
        )


def _effect(operation: Operation, magnitude: float, images: Images) -> float:
    """Mean absolute difference from the original in levels; the same draws for every magnitude."""
    rng = np.random.default_rng(17)
    policy = _at_magnitude(operation, magnitude)
    return float(np.mean([np.abs(policy(images, rng).astype(int) - images).mean() for _ in range(6)]))


def check_declaration(operation: Operation) -> None:
    """Unit, description and source are stated, and the families it covers exist and grow with its strength."""
    assert operation.spec.unit, f"{operation.name}: expected a unit"
    assert operation.spec.description, f"{operation.name}: expected a description"
    assert operation.spec.source, f"{operation.name}: expected a source"
    for name, level_of_strength in operation.covers.items():
        family = find_family(name)
        strengths = operation.spec.limit * np.linspace(0.05, 1.0, 20)
        severities = [family.severity_at(level_of_strength(float(strength))) for strength in strengths]
        assert all(later >= earlier for earlier, later in itertools.pairwise(severities)), (
            f"{operation.name}: expected a severity of {name} that grows with the strength, got {severities}"
        )


def check_images_in_and_out(operation: Operation) -> None:
    """Images of any shape give new uint8 images of the same shape, and are not written."""
    for height, width in _SHAPES:
        images = np.random.default_rng(5).integers(0, 256, (2, height, width, 3), dtype=np.uint8)
        images[1] = images[1, 0, 0]
        original = images.copy()
        images.setflags(write=False)
        for policy in _policies(operation):
            results = policy(images, np.random.default_rng(1))
            assert results.dtype == np.uint8, f"{policy}: expected uint8, got {results.dtype}"
            assert results.shape == images.shape, f"{policy}: expected {images.shape}, got {results.shape}"
            assert not np.shares_memory(results, images), f"{policy}: expected a new array"
            np.testing.assert_array_equal(images, original, err_msg=f"{policy}: the input was changed")


def check_memory_layout(operation: Operation) -> None:
    """A window of a larger array gives the same images as a copy of it."""
    frame = np.random.default_rng(2).integers(0, 256, (3, 50, 60, 3), dtype=np.uint8)
    window = frame[:, 5:45:2, 50:3:-3]
    policy = _at_magnitude(operation, 0.7)
    np.testing.assert_array_equal(
        policy(window, np.random.default_rng(4)), policy(np.ascontiguousarray(window), np.random.default_rng(4))
    )


def check_neutral_value(operation: Operation) -> None:
    """Magnitude 0 and the neutral value of the range leave every image as it is; without a strength there is an effect."""
    images = sample_cells(6, _SIDE)
    if operation.spec.range is None:
        assert (_at_magnitude(operation, 1.0)(images, np.random.default_rng(3)) != images).any(axis=(1, 2, 3)).all()
        return
    for policy in (_at_magnitude(operation, 0.0), _at_value(operation, operation.spec.range.neutral)):
        np.testing.assert_array_equal(policy(images, np.random.default_rng(0)), images, err_msg=repr(policy))


def check_effect_grows(operation: Operation, *, allowed_drop: float = 0.0, may_round_away: bool = False) -> None:
    """The mean effect over images and draws grows with the magnitude.

    Args:
        operation: What is checked; nothing is, if it has no strength.
        allowed_drop: The fraction by which it may fall from one magnitude to the next, for operations whose larger effect
            can resemble the original more.
        may_round_away: Whether a magnitude of 0.1 may have no effect on small images.
    """
    if not operation.has_strength:
        return
    images = sample_cells(12, _SIDE)
    effects = [_effect(operation, magnitude, images) for magnitude in _MAGNITUDES]
    for weaker, stronger in itertools.pairwise(effects):
        assert stronger >= (1 - allowed_drop) * weaker, f"{operation.name}: expected growing effects, got {effects}"
    assert effects[-1] > effects[1], f"{operation.name}: expected growing effects, got {effects}"
    assert effects[1] > 0 or may_round_away, f"{operation.name}: expected an effect at magnitude 0.1"
    assert effects[-1] > 0.5, f"{operation.name}: expected more than half a level at magnitude 1, got {effects[-1]}"


def check_strengths(operation: Operation) -> None:
    """Strengths stay within the limit, reach it, and have both signs where that is declared."""
    rng = np.random.default_rng(0)
    sampling = operation.spec.sampling
    for magnitude in (0.0, 0.25, 1.0):
        strengths = operation.sample_strengths(np.full(4000, magnitude), rng.random(4000))
        limit = magnitude * operation.spec.limit
        assert np.abs(strengths).max() <= limit + 1e-12, f"{operation.name}: strength above its limit {limit}"
        if magnitude == 0.0 or not operation.has_strength:
            continue
        if sampling in (StrengthSampling.SIGNED, StrengthSampling.SYMMETRIC):
            assert strengths.min() < -0.95 * limit
            assert strengths.max() > 0.95 * limit
            assert abs(np.mean(strengths > 0) - 0.5) < 0.03
        else:
            assert strengths.min() >= 0
        if sampling in (StrengthSampling.UNIFORM, StrengthSampling.SYMMETRIC):
            width = limit if sampling is StrengthSampling.UNIFORM else 2 * limit
            assert abs(strengths.std() - width / np.sqrt(12)) < 0.03 * width
        else:
            np.testing.assert_allclose(np.abs(strengths), limit)


def check_same_draws(operation: Operation) -> None:
    """The same generator state gives the same images."""
    images = sample_cells(8, _SIDE)
    policy = _at_magnitude(operation, 0.7, rate=0.8)
    first, second = (policy(images, np.random.default_rng(9)) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def check_draws_for_each_image(operation: Operation, *, num_effects: int | None = None) -> None:
    """Equal images of a batch get different draws.

    Args:
        operation: What is checked; nothing is, if neither strength nor direction is random.
        num_effects: How many different images it can make of one at a fixed magnitude; None: by its sampling, two for
            ``SIGNED`` and any number for others.
    """
    sampling = operation.spec.sampling
    if num_effects is None:
        if sampling in (StrengthSampling.ALWAYS, StrengthSampling.EXACT):
            return
        num_effects = 2 if sampling is StrengthSampling.SIGNED else 1000
    images = np.repeat(sample_cells(1, _SIDE), 200, axis=0)
    results = _at_magnitude(operation, 0.7)(images, np.random.default_rng(2))
    counts = np.unique([result.tobytes() for result in results], return_counts=True)[1]
    assert len(counts) >= min(num_effects, 8), f"{operation.name}: expected different effects, got {len(counts)}"
    if num_effects <= 8:
        assert len(counts) == num_effects, f"{operation.name}: expected {num_effects} effects, got {len(counts)}"
        assert counts.min() > 0.7 * 200 / num_effects, (
            f"{operation.name}: expected equally likely effects, got {counts}"
        )


def check_alone_as_in_the_pipeline(operation: Operation) -> None:
    """A batch of the pipeline, made by a thread, is what the policy makes of the same images from the batch's seed."""
    images = sample_cells(12, _SIDE)
    targets = np.eye(2, dtype=np.float32)[np.arange(12) % 2]
    policy = _at_magnitude(operation, 0.7)
    pipeline = BatchPipeline(
        images, targets, BatchAugmenter(policy, None, seed=3), batch_size=4, order=lambda _: np.arange(12),
        workers=BatchWorkers(num_threads=2),
    )  # fmt: skip
    for index, batch in enumerate(pipeline.epoch(5)):
        rng = np.random.default_rng(np.random.SeedSequence(3, spawn_key=(5, index)))
        np.testing.assert_array_equal(batch.images, policy(images[4 * index : 4 * index + 4], rng))


#: All checks that take an operation alone.
OPERATION_CHECKS: tuple[Callable[[Operation], None], ...] = (
    check_declaration,
    check_images_in_and_out,
    check_memory_layout,
    check_neutral_value,
    check_effect_grows,
    check_strengths,
    check_same_draws,
    check_draws_for_each_image,
    check_alone_as_in_the_pipeline,
)
