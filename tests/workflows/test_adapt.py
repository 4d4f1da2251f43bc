"""``bloodauto adapt``: an export and a few labelled cells become another export, or one clear sentence."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import cv2
import keras
import numpy as np
import pytest
from keras import layers

import bloodauto
from bloodauto.data.dataset import CellDataset
from bloodauto.data.synthetic.generator import synthesize
from bloodauto.data.write import write_dataset
from bloodauto.errors import DataError, RunError, UserError
from bloodauto.export.ensemble_model import ExportedMember, build_ensemble_model
from bloodauto.export.labels import labels_of
from bloodauto.run.artifacts import Adaptation
from bloodauto.run.directory import ExportDirectory
from tests.command_line import bloodauto_here

SIZE_PX = 24


@pytest.fixture(scope="module")
def source() -> CellDataset:
    return synthesize(160, site="lab_a", seed=3, image_size_px=SIZE_PX)


@pytest.fixture(scope="module")
def export(source, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export of one network that has seen the source images for some seconds, with these images beside it."""
    folder = tmp_path_factory.mktemp("export")
    write_dataset(source, folder / "source.npz")
    keras.utils.set_random_seed(0)
    images = keras.Input((SIZE_PX, SIZE_PX, 3), dtype="uint8", name="images")
    x = layers.Conv2D(8, 3, strides=2, activation="relu")(layers.Rescaling(1 / 255)(images))
    x = layers.Dense(16, activation="relu")(layers.Flatten()(x))
    network = keras.Model(images, layers.Dense(8, dtype="float32", name="logits")(x))
    network.compile(keras.optimizers.Adam(3e-3), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    network.fit(source.images, source.labels, epochs=8, verbose=0)
    model = build_ensemble_model([ExportedMember(network, 1.0)])
    directory = ExportDirectory(folder / "model")
    directory.root.mkdir()
    model.save(directory.keras_model)
    directory.labels.write(labels_of(model, source.class_names))
    return directory.root


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixteen cells of another site, larger than the model's images, in folders with names of the site's own."""
    folder = tmp_path_factory.mktemp("cells")
    site = synthesize(16, site="lab_b", seed=5, image_size_px=32)
    for image, label, name in zip(site.images, site.labels, site.names, strict=True):
        path = folder / site.class_names[label].upper() / f"{name.replace('/', '_')}.png"
        path.parent.mkdir(exist_ok=True)
        cv2.imwrite(str(path), image[..., ::-1])
    return folder


def test_an_adapted_export_holds_everything_and_says_what_it_gained_and_lost(
    export: Path, cells: Path, tmp_path: Path
) -> None:
    done = bloodauto_here(
        "adapt", export, "--labelled", cells, "--output", tmp_path / "out", "--source", export.parent / "source.npz",
        "--budget", "3min", "--json",
    )  # fmt: skip
    assert done.code == 0, done.err
    adaptation = Adaptation.model_validate_json(done.out.splitlines()[-1])
    directory = ExportDirectory(tmp_path / "out")
    assert directory.adaptation.read() == adaptation
    assert sum(adaptation.cells.values()) == 16
    assert adaptation.source_images == 80
    assert adaptation.accuracy.low <= adaptation.accuracy.value <= adaptation.accuracy.high
    card = directory.model_card.read_text()
    assert adaptation.summary() in card
    assert "| platelet |" in card
    model = bloodauto.load_model(tmp_path / "out")
    assert model.abstention_rule is not None
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (5, 40, 40, 3), dtype=np.uint8)
    assert model.predict(images).probabilities.shape == (5, 8)
    assert {path.name for path in directory.root.iterdir()} == {
        directory.keras_model.name, "labels.json", "adaptation.json", "README.md",
    }  # fmt: skip
    with pytest.raises(RunError, match="adapted to a site"):
        bloodauto.adapt(tmp_path / "out", cells, tmp_path / "again", source=export.parent / "source.npz")


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({}, UserError, "Name the run with --run"),
        ({"source": "nowhere"}, UserError, "nowhere: expected a file or folder"),
        ({"budget": "1gpu-h"}, UserError, "--budget: expected time of CPUs"),
        ({"budget": "soon"}, UserError, "--budget: expected an amount"),
        ({"class_map": "PLATELET=thrombocyte"}, UserError, "expected a class of the model"),
    ],
)
def test_what_cannot_be_done_is_said_and_nothing_is_written(
    export: Path, cells: Path, tmp_path: Path, arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        bloodauto.adapt(export, cells, tmp_path / "out", **arguments)
    assert not (tmp_path / "out").exists()


def test_too_few_cells_are_counted(export: Path, cells: Path, tmp_path: Path) -> None:
    few = tmp_path / "few"
    files = sorted(cells.rglob("*.png"))
    for file in files[:7]:
        (few / file.parent.name).mkdir(parents=True, exist_ok=True)
        shutil.copy(file, few / file.parent.name)
    with pytest.raises(DataError, match="expected at least 8 labelled cells of the model's classes, got 7"):
        bloodauto.adapt(export, few, tmp_path / "out", source=export.parent / "source.npz")


def test_the_models_own_folder_is_never_overwritten(export: Path, cells: Path) -> None:
    before = json.loads((export / "labels.json").read_text())
    with pytest.raises(UserError, match="another folder than that of the model"):
        bloodauto.adapt(export, cells, export, source=export.parent / "source.npz")
    assert json.loads((export / "labels.json").read_text()) == before
