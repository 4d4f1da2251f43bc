"""Model files from elsewhere: what is not a network of Keras' own layers is refused before Keras builds anything."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest

from bloodauto.errors import UserError
from bloodauto.export.ensemble_model import ExportedMember, TtaTransform, build_ensemble_model
from bloodauto.export.formats.keras_model import KerasExporter
from bloodauto.export.labels import labels_of
from bloodauto.export.model import load_model
from bloodauto.export.model_file import check_model_file

CLASSES = ("basophil", "eosinophil", "ig", "monocyte", "platelet")


@pytest.fixture(scope="module")
def exported(small_pair: list[keras.Model], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ensemble of two networks with test-time augmentation, as the exporter writes it."""
    tta = (TtaTransform("identity", 0.5), TtaTransform("turn_270", 0.3), TtaTransform("brighter", 0.2))
    model = build_ensemble_model([ExportedMember(network, 0.5, tta=tta) for network in small_pair], temperature=1.3)
    path = tmp_path_factory.mktemp("exported") / "model.keras"
    KerasExporter().write(model, labels_of(model, CLASSES), path)
    return path


def members(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def rewritten(path: Path, contents: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    return path


def test_what_the_exporter_writes_passes(exported: Path) -> None:
    check_model_file(exported)
    assert load_model(exported).height_px == 24


def test_arguments_that_older_versions_of_keras_refuse_are_dropped(exported: Path) -> None:
    config = members(exported)["config.json"].decode()
    assert "Dense" in config
    assert "quantization_config" not in config
    assert "input_axes" not in config


def with_layer(
    class_name: str, module: str | None, registered_name: str | None = None
) -> Callable[[dict[str, bytes]], Any]:
    def change(contents: dict[str, bytes]) -> None:
        config = json.loads(contents["config.json"])
        config["config"]["layers"][0] = {
            "class_name": class_name, "module": module, "registered_name": registered_name, "config": {},
        }  # fmt: skip
        contents["config.json"] = json.dumps(config).encode()

    return change


def with_external_weights(contents: dict[str, bytes]) -> None:
    file = io.BytesIO(contents["model.weights.h5"])
    with h5py.File(file, "a") as weights:
        weights["stolen"] = h5py.ExternalLink("/etc/passwd", "/")
    contents["model.weights.h5"] = file.getvalue()


HOSTILE: dict[str, tuple[Callable[[dict[str, bytes]], Any], str]] = {
    "a lambda": (with_layer("Lambda", "keras.layers"), "got 'Lambda' of 'keras.layers'"),
    "a saved model": (with_layer("TFSMLayer", "keras.layers"), "got 'TFSMLayer'"),
    "a wrapper of torch": (with_layer("TorchModuleWrapper", "keras.layers"), "got 'TorchModuleWrapper'"),
    "a vocabulary file": (with_layer("StringLookup", "keras.layers"), "got 'StringLookup'"),
    "a foreign module": (with_layer("system", "os"), "got 'system' of 'os'"),
    "a foreign module with a good name": (with_layer("Dense", "os"), "got 'Dense' of 'os'"),
    "a function": (with_layer("function", "builtins"), "got 'function' of 'builtins'"),
    "a lambda of bytecode": (with_layer("__lambda__", "builtins"), "got '__lambda__'"),
    "keras' own tools": (with_layer("get_file", "keras.utils"), "got 'get_file' of 'keras.utils'"),
    "a registered class": (with_layer("Dense", "keras.layers", "evil>Dense"), "got 'Dense'"),
    "a name that is a list": (with_layer(["Dense"], "keras.layers"), "got ['Dense']"),  # type: ignore[arg-type]
    "external weights": (with_external_weights, "a reference to another file at /stolen"),
    "a member outside": (lambda contents: contents.update({"../../evil.py": b""}), "../../evil.py"),
    "assets": (lambda contents: contents.update({"assets/vocabulary.txt": b""}), "assets/vocabulary.txt"),
    "no weights": (lambda contents: contents.pop("model.weights.h5"), "expected a Keras model that holds"),
    "weights that are none": (lambda contents: contents.update({"model.weights.h5": b"no"}), "damaged file"),
    "no json": (lambda contents: contents.update({"config.json": b"{"}), "damaged file"),
    "deep json": (lambda contents: contents.update({"config.json": b"[" * 100_000}), "damaged file"),
    "a bomb": (lambda contents: contents.update({"config.json": b" " * 70 * 2**20}), "at most 64 MiB"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_files_are_refused_before_anything_is_built(exported: Path, tmp_path: Path, case: str) -> None:
    damage, message = HOSTILE[case]
    contents = members(exported)
    damage(contents)
    with pytest.raises(UserError) as raised:
        load_model(rewritten(tmp_path / "model.keras", contents))
    assert message in str(raised.value)
    assert str(raised.value).startswith(f"{tmp_path}/model.keras: expected")


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04 cut", bytes(np.arange(256, dtype=np.uint8))])
def test_files_that_are_no_archive_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.keras").write_bytes(content)
    with pytest.raises(UserError, match="expected a Keras model, got a damaged file"):
        load_model(tmp_path / "model.keras")
