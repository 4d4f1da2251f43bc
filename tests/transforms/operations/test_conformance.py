"""Every registered operation keeps the promises of the conformance suite, on any image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bloodauto.config.recipe import OPERATION_SETS, OPERATION_SPECS, OperationStep
from bloodauto.testing.conformance import operations as conformance
from bloodauto.testing.conformance import sample_cells
from bloodauto.transforms import OPERATIONS, ApplyOperation, Operation, policies
from bloodauto.transforms.engine import apply_chains
from bloodauto.transforms.operations import select_operations
from bloodauto.transforms.registry import REGISTERED
from bloodauto.transforms.steps import Filter, Kind, Step
from bloodauto.types import Floats, Image

each_operation = pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS)

#: A larger move can show something that resembles the original, so the mean difference may fall somewhat.
EFFECT_SATURATES = {"translate_x", "translate_y", "shear_x", "shear_y", "rotate_any"}
#: At a tenth of the range, 40 pixels give these less than half a level or half a pixel to act on.
MAY_ROUND_AWAY = {"posterize", "jpeg", "cutout", "grid_mask", "gaussian_blur", "defocus_blur"}
#: Operations whose strength is not random, but whose direction or channels are, with the number of their effects.
RANDOM_BESIDES_STRENGTH = {"white_balance": 1000, "stain_jitter": 1000, "quarter_turn": 3}


def at_magnitude(operation: Operation, magnitude: float) -> ApplyOperation:
    return ApplyOperation(
        OperationStep(operation=operation.name, magnitude=magnitude if operation.has_strength else None)
    )


def test_declarations_and_implementations_are_complete() -> None:
    assert list(OPERATIONS) == list(OPERATION_SPECS)
    assert set(REGISTERED) == set(OPERATION_SPECS)
    assert all(operation.spec is OPERATION_SPECS[name] for name, operation in OPERATIONS.items())


@each_operation
@pytest.mark.parametrize("check", conformance.OPERATION_CHECKS, ids=lambda check: check.__name__)
def test_conformance(check: Callable[[Operation], None], operation: Operation) -> None:
    name = operation.name
    if check is conformance.check_effect_grows:
        conformance.check_effect_grows(
            operation, allowed_drop=0.15 if name in EFFECT_SATURATES else 0.0, may_round_away=name in MAY_ROUND_AWAY
        )
    elif check is conformance.check_draws_for_each_image:
        conformance.check_draws_for_each_image(operation, num_effects=RANDOM_BESIDES_STRENGTH.get(name))
    else:
        check(operation)


def _writes_its_input(image: Image, target: Image, parameter: float) -> None:
    target[:] = image
    image.setflags(write=True)
    image[0] = 0


def _ignores_the_strength(image: Image, target: Image, parameter: float) -> None:
    target[:] = image // 2


def _draws_from_another_generator(image: Image, target: Image, parameter: float) -> None:
    target[:] = np.clip(image + parameter * np.random.default_rng().standard_normal(image.shape), 0, 255)


def _weakens(image: Image, target: Image, parameter: float) -> None:
    target[:] = np.clip(image + (parameter > 0) * (30 - parameter), 0, 255)


@pytest.mark.parametrize(
    ("apply", "check"),
    [
        (_writes_its_input, conformance.check_images_in_and_out),
        (_ignores_the_strength, conformance.check_neutral_value),
        (_draws_from_another_generator, conformance.check_same_draws),
        (_weakens, conformance.check_effect_grows),
    ],
)
def test_the_suite_finds_broken_operations(
    apply: Callable[[Image, Image, float], None],
    check: Callable[[Operation], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def build(strengths: Floats, uniforms: Floats, height: int, width: int) -> Sequence[Filter]:
        return [Filter(apply, strength) for strength in strengths.tolist()]

    broken = replace(OPERATIONS["noise"], build=build)
    monkeypatch.setattr(policies, "OPERATIONS", {**OPERATIONS, "noise": broken})
    with pytest.raises((AssertionError, ValueError)):
        check(broken)


def test_the_suite_finds_coverage_that_falls_as_the_strength_grows() -> None:
    with pytest.raises(AssertionError, match="gaussian_noise that grows"):
        conformance.check_declaration(replace(OPERATIONS["noise"], covers={"gaussian_noise": lambda s: 40 - s}))


@given(
    name=st.sampled_from(sorted(OPERATIONS)),
    magnitude=st.floats(0, 1),
    height=st.integers(1, 50),
    width=st.integers(1, 50),
    constant=st.one_of(st.none(), st.integers(0, 255)),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=400)
def test_any_image_at_any_magnitude(
    name: str, magnitude: float, height: int, width: int, constant: int | None, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    shape = (2, height, width, 3)
    images = rng.integers(0, 256, shape, dtype=np.uint8) if constant is None else np.full(shape, constant, np.uint8)
    original = images.copy()
    results = at_magnitude(OPERATIONS[name], magnitude)(images, rng)
    assert results.dtype == np.uint8
    assert results.shape == shape
    np.testing.assert_array_equal(images, original)
    if OPERATIONS[name].kind is Kind.GEOMETRIC:
        # Interpolation and reflection add no level outside the range of the image.
        assert results.min() >= images.min()
        assert results.max() <= images.max()


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(1, 1, 40_000, 3), (1, 40_000, 3, 3), (1, 2600, 2500, 3)])
@each_operation
def test_huge_images(operation: Operation, shape: tuple[int, ...]) -> None:
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    assert at_magnitude(operation, 1.0)(images, np.random.default_rng(1)).shape == shape


@pytest.mark.parametrize("name", [name for name, operation in OPERATIONS.items() if not operation.has_strength])
def test_operations_without_a_strength_ignore_the_magnitude(name: str) -> None:
    images, operation = sample_cells(4, 20), OPERATIONS[name]
    uniforms = np.random.default_rng(0).random((4, 7))
    weak, strong = (
        apply_chains(
            list(images),
            [
                [Step(name, operation.kind, payload)]
                for payload in operation.prepare(np.full(4, magnitude), uniforms, 20, 20)
            ],
        )
        for magnitude in (0.0, 1.0)
    )
    np.testing.assert_array_equal(weak, strong)
    assert (weak != images).any()


def test_sets_and_repeated_names_are_selected() -> None:
    assert len(select_operations("standard")) == 10
    assert set(OPERATION_SETS) == {"standard", "paper", "cells", "aug_mix"}
    assert [operation.name for operation in select_operations(("hue", "rotate", "hue"))] == ["hue", "rotate", "hue"]
