"""Draws blood cells by the signs that identify them: size, nucleus, chromatin, cytoplasm, granules, vacuoles.

Sizes and signs follow ordinary blood-film morphology (Bain, Blood Cells: A Practical Guide) and were adjusted by eye
beside real May-Grünwald-Giemsa films; cells that touch are drawn as if pushed aside, not as if they overlapped.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from bloodauto.data.synthetic.film import (
    BASOPHILIC,
    CHROMATIN,
    EOSIN,
    HAEMOGLOBIN,
    FieldOfView,
    bent_nucleus,
    chromatin,
    contour,
    cytoplasm,
)
from bloodauto.types import Floats


def _offset(rng: np.random.Generator, reach_um: float) -> Floats:
    angle, distance = rng.uniform(0, 2 * np.pi), reach_um * rng.random()
    return distance * np.array([np.cos(angle), np.sin(angle)])


def red_cell(field: FieldOfView, rng: np.random.Generator, centre_um: Floats, radius_um: float) -> None:
    """A red cell: a disc with a paler centre (more or less so), sometimes oval."""
    outline = contour(rng, centre_um, radius_um, 0.025, rng.uniform(1.0, 1.18))
    mask = field.polygon(outline)
    pallor = np.clip(rng.normal(0.6, 0.25), 0.0, 0.95)
    centre = field.polygon(centre_um + (outline - centre_um) * rng.uniform(0.4, 0.55))
    thickness = 1 - pallor * field.blurred(centre, rng.uniform(0.25, 0.6))
    field.paint(mask, {HAEMOGLOBIN: mask * thickness * rng.uniform(0.85, 1.15)})


def draw_background(field: FieldOfView, rng: np.random.Generator, centre_um: Floats, cell_radius_um: float) -> None:
    """Draws plasma, red cells around the position of the cell, and sometimes a stray platelet."""
    field.amounts[EOSIN] += np.maximum(0.025 + 0.008 * field.texture(rng, 3.0), 0)
    radius_um = rng.uniform(3.3, 3.9)  # one film, one size: red cells of a person differ little
    placed: list[Floats] = []
    for _ in range(int(rng.integers(6, 30))):
        position = rng.uniform(-2.5, field.size_um + 2.5, 2)
        clear_of_cell = np.hypot(*(position - centre_um)) > cell_radius_um + radius_um * rng.uniform(0.8, 1.1)
        if clear_of_cell and all(np.hypot(*(position - other)) > 1.75 * radius_um for other in placed):
            placed.append(position)
            red_cell(field, rng, position, radius_um * rng.uniform(0.92, 1.08))
    if rng.random() < 0.15:
        position = rng.uniform(0, field.size_um, 2)
        if np.hypot(*(position - centre_um)) > cell_radius_um + 2:
            _platelet_body(field, rng, position, rng.uniform(0.8, 1.3))


def _platelet_body(field: FieldOfView, rng: np.random.Generator, centre_um: Floats, radius_um: float) -> None:
    mask = field.polygon(contour(rng, centre_um, radius_um, 0.09, rng.uniform(1.0, 1.4)))
    inner = field.granules(rng, centre_um, 0.75 * radius_um, int(14 * radius_um**2), 0.3)
    density = rng.uniform(0.3, 0.6)
    field.paint(
        mask,
        {
            CHROMATIN: mask * density * (0.35 + 0.55 * inner),
            BASOPHILIC: cytoplasm(field, rng, mask, rng.uniform(0.15, 0.4)),
            EOSIN: mask * rng.uniform(0.0, 0.2),
        },
    )


def _platelet(field: FieldOfView, rng: np.random.Generator, centre_um: Floats, radius_um: float) -> None:
    _platelet_body(field, rng, centre_um, radius_um)
    if rng.random() < 0.15:
        angle = rng.uniform(0, 2 * np.pi)
        step = 2.0 * radius_um * np.array([np.cos(angle), np.sin(angle)])
        _platelet_body(field, rng, centre_um + step, rng.uniform(0.9, 1.6))


def _lobed_nucleus(
    field: FieldOfView, rng: np.random.Generator, centre_um: Floats, radius_um: float, lobes: int
) -> Floats:
    arc = {1: 190, 2: 165, 3: 235, 4: 280, 5: 300}[lobes] * rng.uniform(0.85, 1.15)
    width = {1: 0.27, 2: 0.35, 3: 0.27, 4: 0.235, 5: 0.205}[lobes] * rng.uniform(0.85, 1.1)
    return bent_nucleus(
        field,
        rng,
        centre_um + _offset(rng, 0.12 * radius_um),
        spine_radius_um=rng.uniform(0.45, 0.56) * radius_um,
        arc_degrees=arc,
        half_width_um=width * radius_um,
        lobes=lobes,
        waist=1.0 if lobes == 1 else rng.uniform(0.1, 0.45),
    )


def _neutrophil(field: FieldOfView, rng: np.random.Generator, centre_um: Floats, radius_um: float) -> None:
    body = field.polygon(contour(rng, centre_um, radius_um, rng.uniform(0.01, 0.05), rng.uniform(1.0, 1.15)))
    lobes = int(rng.choice([1, 2, 3, 4, 5], p=[0.2, 0.18, 0.32, 0.22, 0.08]))
    nucleus = np.minimum(_lobed_nucleus(field, rng, centre_um, radius_um, lobes), body)
    around = body * (1 - nucleus)
    fine = field.granules(rng, centre_um, radius_um, int(rng.integers(40, 300)), 0.2)
    pink = rng.uniform(0.04, 0.32)
    field.paint(
        body,
        {
            CHROMATIN: chromatin(field, rng, nucleus, density=rng.uniform(0.9, 1.25), clumping=0.28)
            + around * rng.uniform(0.03, 0.2) * fine,
            EOSIN: cytoplasm(field, rng, around, pink) + around * rng.uniform(0.05, 0.3) * fine,
            BASOPHILIC: cytoplasm(field, rng, around, rng.uniform(0.02, 0.22)),
        },
    )


def _eosinophil(field: FieldOfView, rng: np.random.Generator, centre_um: Floats, radius_um: float) -> None:
    body = field.polygon(contour(rng, centre_um, radius_um, rng.uniform(0.015, 0.05), rng.uniform(1.0, 1.15)))
    lobes = int(rng.choice([1, 2, 3], p=[0.15, 0.6, 0.25]))
    nucleus = np.minimum(_lobed_nucleus(field, rng, centre_um, radius_um, lobes), body)
    around = body * (1 - nucleus)
    coarse = field.granules(rng, centre_um, 0.97 * radius_um, int(rng.uniform(1.5, 10.0) * radius_um**2), 0.33)
    field.paint(
        body,
        {
            CHROMATIN: chromatin(field, rng, nucleus, density=rng.uniform(0.85, 1.2), clumping=0.28),
            EOSIN: (around + 0.1 * nucleus) * (rng.uniform(0.08, 0.4) + rng.uniform(0.25, 0.6) * coarse),
            BASOPHILIC: cytoplasm(field, rng, around, rng.uniform(0.03, 0.25)),
        },
    )


def _basophil(field: FieldOfView, rng: np.random.Generator, centre_um: Floats, radius_um: float) -> None:
    body = field.polygon(contour(rng, centre_um, radius_um, rng.uniform(0.02, 0.07), rng.uniform(1.0, 1.2)))
    nucleus = np.minimum(_lobed_nucleus(field, rng, centre_um, radius_um * 1.05, int(rng.integers(1, 4))), body)
    coarse = field.granules(rng, centre_um, 0.97 * radius_um, int(rng.uniform(0.7, 3.3) ** 2 * radius_um**2), 0.38)
    around = body * (1 - nucleus)
    smudge = field.blurred(nucleus, 0.35) * body  # granules and leaked dye hide the nucleus's outline
    field.paint(
        body,
        {
            CHROMATIN: chromatin(field, rng, smudge, density=rng.uniform(0.65, 0.95), clumping=0.2)
            + body * rng.uniform(0.3, 0.75) * coarse,
            BASOPHILIC: cytoplasm(field, rng, around, rng.uniform(0.1, 0.35)) + body * 0.4 * coarse,
            EOSIN: cytoplasm(field, rng, around, rng.uniform(0.05, 0.35)),
        },
    )


def _erythroblast(field: FieldOfView, rng: np.random.Generator, centre_um: Floats, radius_um: float) -> None:
    maturity = float(np.clip((7.2 - radius_um) / 3.4 + rng.normal(0, 0.12), 0, 1))  # small ones are the mature ones
    body = field.polygon(contour(rng, centre_um, radius_um, rng.uniform(0.015, 0.05), rng.uniform(1.0, 1.15)))
    nucleus_radius = radius_um * (0.80 - 0.24 * maturity + rng.normal(0, 0.03))
    nucleus_centre = centre_um + _offset(rng, 0.8 * (radius_um - nucleus_radius))
    nucleus = np.minimum(field.polygon(contour(rng, nucleus_centre, nucleus_radius, 0.015, rng.uniform(1, 1.1))), body)
    around = body * (1 - nucleus)
    field.paint(
        body,
        {
            CHROMATIN: chromatin(
                field, rng, nucleus, density=1.0 + 0.3 * maturity, clumping=0.28 - 0.14 * maturity, grain_um=0.9
            ),
            BASOPHILIC: cytoplasm(field, rng, around, 1.05 - 0.7 * maturity),
            HAEMOGLOBIN: around * 0.95 * maturity,
        },
    )


def _immature_granulocyte(field: FieldOfView, rng: np.random.Generator, centre_um: Floats, radius_um: float) -> None:
    maturity = rng.random()  # 0: promyelocyte, 0.5: myelocyte, 1: metamyelocyte
    body = field.polygon(contour(rng, centre_um, radius_um, rng.uniform(0.015, 0.06), rng.uniform(1.0, 1.2)))
    if maturity < 0.65:
        nucleus_radius = radius_um * (0.76 - 0.2 * maturity + rng.normal(0, 0.03))
        nucleus_centre = centre_um + _offset(rng, 0.9 * (radius_um - nucleus_radius))
        nucleus = field.polygon(contour(rng, nucleus_centre, nucleus_radius, 0.03, rng.uniform(1.0, 1.35)))
    else:
        nucleus = bent_nucleus(
            field,
            rng,
            centre_um + _offset(rng, 0.15 * radius_um),
            spine_radius_um=rng.uniform(0.32, 0.42) * radius_um,
            arc_degrees=rng.uniform(110, 190),
            half_width_um=rng.uniform(0.29, 0.42) * radius_um,
            lobes=1,
            waist=1.0,
        )
    nucleus = np.minimum(nucleus, body)
    around = body * (1 - nucleus)
    count = int(rng.uniform(0.2, 2.4) ** 2 * radius_um**2 * (1 - 0.6 * maturity))
    grains = field.granules(rng, centre_um, 0.97 * radius_um, count, 0.22)
    field.paint(
        body,
        {
            CHROMATIN: chromatin(field, rng, nucleus, density=rng.uniform(0.75, 1.05), clumping=0.26, grain_um=0.55)
            + (around + 0.35 * nucleus) * rng.uniform(0.3, 0.6) * grains,
            BASOPHILIC: cytoplasm(field, rng, around, (0.55 - 0.4 * maturity) * rng.uniform(0.4, 1.4)),
            EOSIN: cytoplasm(field, rng, around, 0.04 + 0.14 * maturity),
        },
    )


def _lymphocyte(field: FieldOfView, rng: np.random.Generator, centre_um: Floats, radius_um: float) -> None:
    reactive = rng.random() < 0.25  # a wide seam of cytoplasm, as in viral infections
    radius_um *= 1.2 if reactive else 1.0
    body = field.polygon(contour(rng, centre_um, radius_um, rng.uniform(0.015, 0.06), rng.uniform(1.0, 1.15)))
    nucleus_radius = radius_um * (rng.uniform(0.64, 0.78) if reactive else rng.uniform(0.82, 0.97))
    nucleus_centre = centre_um + _offset(rng, 0.9 * (radius_um - nucleus_radius))
    nucleus = np.minimum(field.polygon(contour(rng, nucleus_centre, nucleus_radius, 0.03, rng.uniform(1, 1.15))), body)
    around = body * (1 - nucleus)
    grains = field.granules(rng, centre_um, radius_um, int(rng.integers(0, 8)), 0.25)
    field.paint(
        body,
        {
            CHROMATIN: chromatin(field, rng, nucleus, density=rng.uniform(0.9, 1.25), clumping=0.24, grain_um=0.9)
            + around * 0.5 * grains,
            BASOPHILIC: cytoplasm(field, rng, around, rng.uniform(0.25, 0.95)),
        },
    )


def _monocyte(field: FieldOfView, rng: np.random.Generator, centre_um: Floats, radius_um: float) -> None:
    body = field.polygon(contour(rng, centre_um, radius_um, rng.uniform(0.02, 0.1), rng.uniform(1.0, 1.3)))
    nucleus = np.minimum(
        bent_nucleus(
            field,
            rng,
            centre_um + _offset(rng, 0.15 * radius_um),
            spine_radius_um=rng.uniform(0.28, 0.42) * radius_um,
            arc_degrees=rng.uniform(60, 250),
            half_width_um=rng.uniform(0.31, 0.45) * radius_um,
            lobes=int(rng.choice([1, 2, 3], p=[0.6, 0.25, 0.15])),
            waist=rng.uniform(0.75, 0.95),
        ),
        body,
    )
    around = body * (1 - nucleus)
    holes = max(0, int(rng.integers(-3, 8)))
    centres_um = centre_um + np.stack([_offset(rng, 0.85 * radius_um) for _ in range(holes)] or [np.zeros(2)])
    vacuoles = field.discs(centres_um, rng.uniform(0.3, 0.75, len(centres_um)) * (holes > 0))
    fine = field.granules(rng, centre_um, radius_um, int(rng.integers(20, 160)), 0.15)
    kept = 1 - vacuoles * (0.85 - 0.4 * nucleus)
    field.paint(
        body,
        {
            CHROMATIN: kept * chromatin(field, rng, nucleus, density=rng.uniform(0.7, 1.0), clumping=0.22, grain_um=0.6)
            + around * 0.1 * fine,
            BASOPHILIC: kept * cytoplasm(field, rng, around, rng.uniform(0.25, 0.6), mottle=0.2),
            EOSIN: kept * around * rng.uniform(0.0, 0.12),
        },
    )


@dataclass(frozen=True)
class CellType:
    """How cells of a class are drawn.

    Attributes:
        paint: paints a cell of a given centre and radius into a field of view.
        min_radius_um: of the smallest cells.
        max_radius_um: of the largest cells.
    """

    paint: Callable[[FieldOfView, np.random.Generator, Floats, float], None]
    min_radius_um: float
    max_radius_um: float

    def draw_radius(self, rng: np.random.Generator) -> float:
        """A radius in micrometres."""
        return float(rng.uniform(self.min_radius_um, self.max_radius_um))


#: The classes in the order of ``COMPETITION_CLASSES``.
CELL_TYPES: dict[str, CellType] = {
    "basophil": CellType(_basophil, 5.4, 7.6),
    "eosinophil": CellType(_eosinophil, 6.0, 8.0),
    "erythroblast": CellType(_erythroblast, 3.6, 7.6),
    "ig": CellType(_immature_granulocyte, 6.2, 9.0),
    "lymphocyte": CellType(_lymphocyte, 4.0, 6.4),
    "monocyte": CellType(_monocyte, 6.2, 9.2),
    "neutrophil": CellType(_neutrophil, 5.8, 7.6),
    "platelet": CellType(_platelet, 1.3, 2.9),
}


def _neighbour(field: FieldOfView, rng: np.random.Generator, centre_um: Floats, cell_radius_um: float) -> None:
    """A second nucleated cell of any kind, beside the first and mostly outside the window."""
    cell_type = CELL_TYPES[list(CELL_TYPES)[rng.integers(len(CELL_TYPES))]]
    radius_um = cell_type.draw_radius(rng)
    angle = rng.uniform(0, 2 * np.pi)
    distance_um = max(cell_radius_um + radius_um + 0.5, 0.5 * field.size_um + 0.4 * radius_um)
    cell_type.paint(field, rng, centre_um + distance_um * np.array([np.cos(angle), np.sin(angle)]), radius_um)


def draw_cell(rng: np.random.Generator, class_name: str, *, size_px: int, size_um: float) -> Floats:
    """Draws one cell of a class near the middle of a window, among red cells.

    Args:
        rng: the source of every random choice.
        class_name: a key of ``CELL_TYPES``.
        size_px: side of the result in pixels.
        size_um: side of the window in micrometres.

    Returns:
        float32, (4, size_px, size_px): amounts of chromatin, basophilic stain, eosin and haemoglobin, all >= 0.
    """
    cell_type = CELL_TYPES[class_name]
    field = FieldOfView(size_px, size_um)
    centre_um = size_um / 2 + rng.normal(0, 0.9, 2)
    radius_um = cell_type.draw_radius(rng)
    draw_background(field, rng, centre_um, radius_um)
    if rng.random() < 0.12:
        _neighbour(field, rng, centre_um, radius_um)
    cell_type.paint(field, rng, centre_um, radius_um)
    return field.amounts
