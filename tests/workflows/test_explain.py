"""``bloodauto explain`` from an export and images to pictures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import keras
import numpy as np
import pytest
from keras import layers
from typer.testing import CliRunner

import bloodauto
from bloodauto.cli.main import app
from bloodauto.errors import DataError, UserError
from bloodauto.export.labels import labels_of
from bloodauto.run.directory import ExportDirectory

CLASSES = ("erythroblast", "neutrophil", "platelet")


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that names the channel with the most light: red, green, blue."""
    directory = ExportDirectory(tmp_path_factory.mktemp("export"))
    images = keras.Input((16, 16, 3), dtype="uint8")
    x = layers.Conv2D(3, 1, use_bias=False, name="conv")(layers.Rescaling(1 / 25)(images))
    model = keras.Model(images, layers.Softmax()(layers.GlobalAveragePooling2D()(x)))
    model.get_layer("conv").set_weights([np.eye(3, dtype=np.float32)[None, None]])
    model.save(directory.keras_model)
    directory.labels.write(labels_of(model, CLASSES, None))
    return directory.root


@pytest.fixture
def cells(tmp_path: Path) -> Path:
    """Two images of one name in two folders, dark but for a patch in the channel of the class."""
    for number, (folder, channel) in enumerate((("a", 0), ("b", 2))):
        (tmp_path / "cells" / folder).mkdir(parents=True)
        image = np.full((16, 16, 3), 20, np.uint8)
        image[2:8, 8 * number : 8 * number + 6, channel] = 250
        cv2.imwrite(str(tmp_path / "cells" / folder / "cell.png"), image[..., ::-1])
    return tmp_path / "cells"


def test_pictures_show_the_image_and_the_map_beside_it(export: Path, cells: Path, tmp_path: Path) -> None:
    output = tmp_path / "explained"
    shown = CliRunner().invoke(app, ["explain", str(export), str(cells), "--output", str(output), "--json"])
    assert shown.exit_code == 0, shown.output
    rows = json.loads(shown.stdout.splitlines()[-1])
    assert [(row["name"], row["label"]) for row in rows] == [("a/cell.png", "erythroblast"), ("b/cell.png", "platelet")]
    assert [Path(row["path"]).name for row in rows] == ["cell.png", "cell_2.png"]
    assert "b/cell.png: platelet" in shown.stderr
    for number, row in enumerate(rows):
        picture = cv2.imread(row["path"])
        height, side = picture.shape[:2]
        assert (height, side) == (256, 2 * 256 + 8)
        plain, explained = picture[:, :256].astype(int), picture[:, -256:].astype(int)
        changed = np.abs(plain - explained).sum(axis=2)
        inside = changed[40:120, 128 * number + 8 : 128 * number + 88].mean()
        assert inside > 4 * changed[160:].mean(), "the patch is what the class was named for"


def test_a_class_can_be_chosen_and_array_files_are_read(export: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "cells.npy", np.full((2, 16, 16, 3), 90, np.uint8))
    explained = bloodauto.explain(
        export, [tmp_path / "cells.npy"], tmp_path / "out", method="occlusion", label="platelet"
    )
    assert [entry.explained_label for entry in explained] == ["platelet", "platelet"]
    assert len({entry.path for entry in explained}) == 2
    assert all(entry.path.parent == tmp_path / "out" for entry in explained)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"label": "blast"}, UserError, "--class: expected one of erythroblast, neutrophil, platelet, got 'blast'"),
        ({"method": "lime"}, UserError, "--method: expected grad_cam or occlusion, got 'lime'"),
        ({"images": []}, UserError, "expected at least one image"),
        ({"images": ["nowhere.png"]}, DataError, "nowhere.png"),
        ({"model": "nowhere"}, UserError, "expected an exported model"),
    ],
)
def test_wrong_input_is_named_and_nothing_is_written(
    export: Path, cells: Path, tmp_path: Path, changes: dict[str, Any], error: type[Exception], message: str
) -> None:
    arguments: dict[str, Any] = {"model": export, "images": [cells], "output": tmp_path / "out", **changes}
    with pytest.raises(error, match=message):
        bloodauto.explain(**arguments)
    assert not (tmp_path / "out").exists()
