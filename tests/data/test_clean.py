"""Cleaning: copies, contradictions, planted photographs, near-duplicates, blanks."""

from __future__ import annotations

import csv
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from bloodauto.data.clean import Cleaning, clean, write_cleaning_csv
from bloodauto.data.dataset import COMPETITION_CLASSES, CellDataset, FileProblem
from bloodauto.data.load import load_dataset
from bloodauto.data.near_duplicates import near_duplicate_clusters
from tests.locations import SHARED

DATA = SHARED / "data"


def smear(rng: np.random.Generator, side: int = 96) -> np.ndarray:
    """A stained cell on a pale ground with neighbours and grain, uint8: similar at a glance, different in detail."""
    image = np.full((side, side, 3), (235, 215, 200), np.float32)
    scale = side / 96
    for _ in range(4):
        x, y = rng.uniform(0, side, 2)
        cv2.circle(image, (int(x), int(y)), int(14 * scale), (205, 165, 160), -1)
    axes = (int(rng.uniform(18, 26) * scale), int(rng.uniform(16, 24) * scale))
    cv2.ellipse(image, (side // 2, side // 2), axes, rng.uniform(0, 180), 0, 360, (150, 110, 170), -1)
    for _ in range(5):
        x, y = side / 2 + rng.normal(0, 7 * scale, 2)
        cv2.circle(image, (int(x), int(y)), int(rng.uniform(4, 9) * scale), (90, 45, 130), -1)
    image = cv2.GaussianBlur(image, (0, 0), 0.8 * scale)
    return np.clip(image + rng.normal(0, 2.0, image.shape), 0, 255).astype(np.uint8)


def dataset_of(
    images: list[np.ndarray], labels: list[int], splits: list[str] | None = None, **changes: object
) -> CellDataset:
    count = len(images)
    columns: dict = {
        "class_names": COMPETITION_CLASSES,
        "names": np.array([f"{index}.png" for index in range(count)]),
        "groups": np.full(count, ""),
        "sites": np.full(count, ""),
        "predefined_splits": np.array(splits if splits is not None else [""] * count),
        "source": "test",
        **changes,
    }
    return CellDataset(images=np.stack(images), labels=np.array(labels, np.int64), **columns)


def competition_like(count: int, planted: tuple[int, ...], side: int, seed: int = 0) -> tuple[CellDataset, np.ndarray]:
    """A data set of eight classes with some images planted many times over all labels; and which these are, bool (n,)."""
    rng = np.random.default_rng(seed)
    real = count - sum(planted)
    images = [smear(rng, side) for _ in range(real)]
    for copies in planted:
        cartoon = smear(rng, side)
        cv2.putText(cartoon, "HA", (side // 8, side // 2), cv2.FONT_HERSHEY_SIMPLEX, side / 60, (20, 220, 30), 2)
        images += [cartoon] * copies
    is_planted = np.arange(count) >= real
    order = rng.permutation(count)
    labels = np.concatenate([rng.permutation(np.arange(part) % 8) for part in (real, *planted)])
    dataset = dataset_of([images[index] for index in order], labels[order].tolist())
    return dataset, is_planted[order]


@pytest.fixture(scope="module")
def photographs() -> list[np.ndarray]:
    rng = np.random.default_rng(7)
    return [smear(rng) for _ in range(12)]


def test_competition_file_in_small(photographs: list[np.ndarray]) -> None:
    dataset, is_planted = competition_like(1200, (160, 20), side=48)
    cleaning = clean(dataset)
    np.testing.assert_array_equal(cleaning.keep, ~is_planted)
    assert set(cleaning.findings[is_planted].tolist()) == {"planted_outlier"}
    assert set(cleaning.findings[~is_planted].tolist()) == {"none"}
    reason = cleaning.reasons[is_planted][0]
    assert "identical copies" in reason
    assert "basophil" in reason
    summary = cleaning.summary(dataset)
    assert (summary.images, summary.kept, summary.excluded) == (1200, 1020, 180)
    assert [(f.finding, f.action, f.count) for f in summary.findings] == [("planted_outlier", "excluded", 180)]


@pytest.mark.slow
def test_half_a_competition_file_is_cleaned_in_seconds() -> None:
    dataset, is_planted = competition_like(6_900, (800, 100), side=64)
    started = time.process_time()
    cleaning = clean(dataset)
    cpu_seconds = time.process_time() - started
    np.testing.assert_array_equal(cleaning.keep, ~is_planted)
    # Seconds of processor time, not of the clock, which would measure what else the machine does; room, because BLAS
    # threads that wait for a busy core spin.
    assert cpu_seconds < 25, f"cleaning took {cpu_seconds:.1f} s of processor time"


def test_exact_copies_keep_the_first(photographs: list[np.ndarray]) -> None:
    a, b, c = photographs[:3]
    cleaning = clean(dataset_of([a, b, a, c, a], [0, 1, 0, 2, 0]))
    assert cleaning.keep.tolist() == [True, True, False, True, False]
    assert cleaning.findings.tolist() == ["none", "none", "exact_duplicate", "none", "exact_duplicate"]
    assert cleaning.clusters.tolist() == [0, 1, 0, 3, 0]
    assert cleaning.reasons[2] == "identical to 0.png"


def test_contradicting_labels_exclude_every_copy(photographs: list[np.ndarray]) -> None:
    a, b, c = photographs[:3]
    cleaning = clean(dataset_of([a, b, a, c, a], [0, 1, 0, 2, 3]))
    assert cleaning.keep.tolist() == [False, True, False, True, False]
    assert cleaning.findings[[0, 2, 4]].tolist() == ["contradicting_labels"] * 3
    assert "labelled basophil, ig" in cleaning.reasons[0]


def test_many_copies_with_one_label_are_copies_and_not_planted(photographs: list[np.ndarray]) -> None:
    cleaning = clean(dataset_of([photographs[0]] * 30 + [photographs[1]], [0] * 30 + [1]))
    assert cleaning.keep.tolist() == [True] + [False] * 29 + [True]
    assert "planted_outlier" not in cleaning.findings


@pytest.mark.parametrize(
    ("better", "worse"), [("test", "train"), ("test", "validation"), ("validation", "train"), ("test", "")]
)
@pytest.mark.parametrize("is_exact", [True, False])
def test_copy_across_predefined_splits_stays_in_the_one_with_the_highest_rank(
    photographs: list[np.ndarray], better: str, worse: str, is_exact: bool
) -> None:
    copy = photographs[0] if is_exact else cv2.GaussianBlur(photographs[0], (0, 0), 0.7)
    dataset = dataset_of([photographs[0], photographs[1], copy], [0, 1, 0], [worse, "train", better])
    cleaning = clean(dataset)
    assert cleaning.keep.tolist() == [False, True, True]
    assert cleaning.findings[0] == "duplicate_across_splits"
    assert f"2.png in {better}" in cleaning.reasons[0]


def _jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    return cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], cv2.IMREAD_COLOR)


def _shifted(image: np.ndarray, x: int, y: int) -> np.ndarray:
    matrix = np.array([[1, 0, x], [0, 1, y]], np.float32)
    return cv2.warpAffine(image, matrix, image.shape[1::-1], borderMode=cv2.BORDER_REFLECT)


ALTERATIONS = {
    "jpeg_30": lambda image: _jpeg(image, 30),
    "blur": lambda image: cv2.GaussianBlur(image, (0, 0), 0.8),
    "smaller_and_back": lambda image: cv2.resize(cv2.resize(image, (64, 64), interpolation=cv2.INTER_AREA), (96, 96)),
    "brighter": lambda image: cv2.convertScaleAbs(image, alpha=1.1, beta=-12),
    "shifted": lambda image: _shifted(image, 2, -2),
    "shifted_by_an_odd_number": lambda image: _jpeg(_shifted(image, 1, -1), 60),
    "quarter_turn": lambda image: np.rot90(image),
    "mirrored": lambda image: image[:, ::-1],
    "mirrored_turned_recompressed": lambda image: _jpeg(np.ascontiguousarray(np.rot90(image[:, ::-1], 3)), 60),
}


@pytest.mark.parametrize("alteration", ALTERATIONS)
def test_near_duplicates_have_one_cluster_and_are_kept(photographs: list[np.ndarray], alteration: str) -> None:
    altered = [np.ascontiguousarray(ALTERATIONS[alteration](image)) for image in photographs[:6]]
    dataset = dataset_of([*photographs, *altered], [0] * 18)
    cleaning = clean(dataset)
    assert cleaning.keep.all()
    assert cleaning.clusters.tolist() == [*range(12), *range(6)]
    assert cleaning.findings.tolist() == ["near_duplicate"] * 6 + ["none"] * 6 + ["near_duplicate"] * 6
    assert "the same photograph as 0.png" in cleaning.reasons[12]


def test_near_duplicate_of_an_exact_copy_joins_its_cluster(photographs: list[np.ndarray]) -> None:
    a, b = photographs[:2]
    blurred = cv2.GaussianBlur(a, (0, 0), 0.7)
    cleaning = clean(dataset_of([b, a, blurred, a, blurred], [1, 0, 0, 0, 0]))
    assert cleaning.clusters.tolist() == [0, 1, 1, 1, 1]
    assert cleaning.keep.tolist() == [True, True, True, False, False]


def test_recompressed_planted_image_is_detected_too(photographs: list[np.ndarray]) -> None:
    planted = [_jpeg(photographs[0], quality) for quality in range(40, 64)]
    dataset = dataset_of([*planted, *photographs[1:]], [index % 8 for index in range(24 + 11)])
    cleaning = clean(dataset)
    assert set(cleaning.findings[:24].tolist()) == {"planted_outlier"}
    np.testing.assert_array_equal(cleaning.keep, np.arange(35) >= 24)


def test_small_steps_do_not_chain_photographs_that_have_nothing_in_common(photographs: list[np.ndarray]) -> None:
    first, last = (image.astype(np.float32) for image in photographs[:2])
    steps = [np.rint(first + (last - first) * step).astype(np.uint8) for step in np.linspace(0, 1, 16)]
    direct = near_duplicate_clusters(np.stack([steps[0], steps[-1]]))
    assert direct.tolist() == [0, 1]
    clusters = near_duplicate_clusters(np.stack(steps))
    assert clusters[0] == clusters[1]
    assert clusters[0] != clusters[-1]


@pytest.mark.parametrize("side", [28, 64, 96])
def test_different_cells_never_have_one_cluster(side: int) -> None:
    rng = np.random.default_rng(side)
    images = np.stack([smear(rng, side) for _ in range(400)])
    np.testing.assert_array_equal(near_duplicate_clusters(images), np.arange(400))


def test_blank_photographs_are_noted_and_not_matched(photographs: list[np.ndarray]) -> None:
    rng = np.random.default_rng(0)
    faint = [np.clip(rng.normal(level, 0.5, (96, 96, 3)), 0, 255).astype(np.uint8) for level in (240, 20)]
    cleaning = clean(dataset_of([*faint, np.zeros_like(faint[0]), photographs[0]], [0, 0, 0, 1]))
    assert cleaning.findings.tolist() == ["blank", "blank", "blank", "none"]
    assert cleaning.keep.all()
    assert cleaning.clusters.tolist() == [0, 1, 2, 3]


def test_disabled_keeps_all_and_says_so(photographs: list[np.ndarray], tmp_path: Path) -> None:
    dataset = dataset_of([photographs[0]] * 3, [0, 1, 2])
    cleaning = clean(dataset, enabled=False)
    assert cleaning.keep.all()
    assert cleaning.clusters.tolist() == [0, 1, 2]
    assert not cleaning.is_enabled
    write_cleaning_csv(tmp_path / "cleaning.csv", dataset, cleaning)
    rows = list(csv.DictReader((tmp_path / "cleaning.csv").open(encoding="utf-8", newline="")))
    assert [(row["finding"], row["reason"]) for row in rows] == [("not_cleaned", "cleaning was switched off")] * 3


def test_csv_has_a_row_for_each_image_and_each_lost_file(photographs: list[np.ndarray], tmp_path: Path) -> None:
    problems = (
        FileProblem("1.png", "grey", "converted", "the grey channel repeated three times"),
        FileProblem('odd, "name".jpg', "truncated", "excluded", "the JPEG ends early"),
    )
    dataset = dataset_of([photographs[0], photographs[1], photographs[0]], [0, 1, 0], problems=problems)
    cleaning: Cleaning = clean(dataset)
    write_cleaning_csv(tmp_path / "cleaning.csv", dataset, cleaning)
    with (tmp_path / "cleaning.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.reader(stream))
    assert rows == [
        ["name", "label", "finding", "action", "cluster", "reason", "format_version"],
        ["0.png", "basophil", "none", "keep", "0", "", "1"],
        ["1.png", "eosinophil", "grey", "converted", "1", "the grey channel repeated three times", "1"],
        ["2.png", "basophil", "exact_duplicate", "excluded", "0", "identical to 0.png", "1"],
        ['odd, "name".jpg', "", "truncated", "excluded", "", "the JPEG ends early", "1"],
    ]
    assert cleaning.keep.tolist() == [True, True, False]
    counts = {(f.finding, f.action): f.count for f in cleaning.summary(dataset).findings}
    assert counts == {("grey", "converted"): 1, ("exact_duplicate", "excluded"): 1, ("truncated", "excluded"): 1}


@pytest.mark.real_data
@pytest.mark.slow
@pytest.mark.skipif(not DATA.is_dir(), reason="the real cells are not beside the project")
def test_real_cells_no_false_and_no_missed_near_duplicates() -> None:
    # Inspected by eye: pbc96 holds no photograph twice, bccd96 eight cells that were photographed twice.
    pbc = load_dataset(DATA / "pbc96")
    assert clean(pbc).summary(pbc).findings == ()
    bccd = load_dataset(DATA / "bccd96")
    cleaning = clean(bccd)
    clusters = [bccd.names[cleaning.clusters == cluster].tolist() for cluster in np.unique(cleaning.clusters)]
    assert [
        [Path(name).stem.removeprefix("BloodImage_") for name in names] for names in clusters if len(names) > 1
    ] == [
        ["00204_14", "00277_14"],
        ["00226_15", "00261_09"],
        ["00229_12", "00258_01"],
        ["00205_13", "00276_12"],
        ["00230_10", "00257_07"],
        ["00237_11", "00252_09"],
        ["00243_11", "00250_00"],
        ["00244_14", "00247_13"],
    ]
