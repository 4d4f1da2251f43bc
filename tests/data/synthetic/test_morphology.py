"""Drawn cells have the signs that identify their class, measured on the amounts, before any stain or light."""

from __future__ import annotations

import numpy as np
import pytest

from bloodauto.data.dataset import COMPETITION_CLASSES
from bloodauto.data.synthetic.film import BASOPHILIC, CHROMATIN, EOSIN
from bloodauto.data.synthetic.morphology import CELL_TYPES, draw_cell

SIZE_PX, SIZE_UM = 96, 21.5
PIXEL_AREA_UM2 = (SIZE_UM / SIZE_PX) ** 2


@pytest.fixture(scope="module")
def amounts() -> dict[str, np.ndarray]:
    """Class -> float32 (30, 4, 96, 96)."""
    return {
        name: np.stack(
            [draw_cell(np.random.default_rng([7, i]), name, size_px=SIZE_PX, size_um=SIZE_UM) for i in range(30)]
        )
        for name in COMPETITION_CLASSES
    }


def _median_sum(stack: np.ndarray, absorber: int) -> float:
    return float(np.median(stack[:, absorber].sum((1, 2))) * PIXEL_AREA_UM2)


def _nucleus_area_um2(stack: np.ndarray) -> float:
    return float(np.median((stack[:, CHROMATIN] > 0.4).sum((1, 2))) * PIXEL_AREA_UM2)


def test_every_class_is_drawn_with_finite_amounts(amounts: dict[str, np.ndarray]) -> None:
    assert tuple(CELL_TYPES) == COMPETITION_CLASSES
    for stack in amounts.values():
        assert stack.dtype == np.float32
        assert np.isfinite(stack).all()
        assert stack.min() >= 0
        assert stack.max() < 6


def test_eosinophils_hold_most_eosin(amounts: dict[str, np.ndarray]) -> None:
    eosin = {name: _median_sum(stack, EOSIN) for name, stack in amounts.items()}
    assert max(eosin, key=lambda name: eosin[name]) == "eosinophil"
    assert eosin["eosinophil"] > 1.5 * eosin["neutrophil"]


def test_platelets_have_next_to_no_chromatin(amounts: dict[str, np.ndarray]) -> None:
    chromatin = {name: _median_sum(stack, CHROMATIN) for name, stack in amounts.items()}
    assert chromatin["platelet"] < 0.2 * min(value for name, value in chromatin.items() if name != "platelet")


def test_immature_nuclei_are_larger_than_lymphocytes_and_segmented_ones(amounts: dict[str, np.ndarray]) -> None:
    area = {name: _nucleus_area_um2(stack) for name, stack in amounts.items()}
    assert area["ig"] > area["lymphocyte"]
    assert area["ig"] > area["neutrophil"]
    assert area["monocyte"] > area["neutrophil"]


def test_basophils_alone_hold_grains_that_are_dark_in_both_dyes(amounts: dict[str, np.ndarray]) -> None:
    """Elsewhere blue dye ends where chromatin begins, so that the two change in opposite directions."""

    def agreement(stack: np.ndarray) -> float:
        steps = np.diff(stack, axis=2)
        pairs = zip(steps[:, CHROMATIN], steps[:, BASOPHILIC], strict=True)
        return float(np.median([np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in pairs]))

    for name, stack in amounts.items():
        if name == "basophil":
            assert agreement(stack) > 0.4
        elif name != "platelet":
            assert agreement(stack) < 0.2, name


def test_monocytes_have_wide_blue_cytoplasm_and_lymphocytes_a_narrow_one(amounts: dict[str, np.ndarray]) -> None:
    def blue_area_um2(stack: np.ndarray) -> float:
        bare = (stack[:, BASOPHILIC] > 0.15) & (stack[:, CHROMATIN] < 0.3)
        return float(np.median(bare.sum((1, 2))) * PIXEL_AREA_UM2)

    assert blue_area_um2(amounts["monocyte"]) > 2 * blue_area_um2(amounts["lymphocyte"])


def test_the_same_generator_draws_the_same_cell() -> None:
    first, second = (draw_cell(np.random.default_rng(3), "monocyte", size_px=64, size_um=20.0) for _ in range(2))
    assert (first == second).all()
