"""The competition's archive, beyond what every format has in common."""

from __future__ import annotations

import importlib.util
import json
import zipfile

import cv2
import numpy as np
import pytest

from bloodauto.data.dataset import COMPETITION_CLASSES
from bloodauto.errors import RunError
from bloodauto.export.ensemble_model import ExportedMember, TtaTransform, build_ensemble_model
from bloodauto.export.formats.codabench import CodabenchExporter
from bloodauto.export.labels import labels_of
from bloodauto.export.parity import ParitySample

#: Not the competition's order: the archive must turn outputs into the competition's numbers.
CLASS_NAMES = COMPETITION_CLASSES[::-1]


@pytest.fixture(scope="module")
def model(make):
    tta = (TtaTransform("identity", 0.5), TtaTransform("turn_180", 0.5))
    members = [ExportedMember(make.randomise(make.small(size_px=96, classes=8), seed), 0.5, tta=tta) for seed in (1, 2)]
    return build_ensemble_model(members)


@pytest.fixture(scope="module")
def submission(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("submission") / "submission.zip"
    CodabenchExporter().write(model, labels_of(model, CLASS_NAMES), path)
    return path


def test_model_and_weights_lie_at_the_root(submission, model):
    with zipfile.ZipFile(submission) as archive:
        names = archive.namelist()
        source = archive.read("model.py").decode()
        assert json.loads(archive.read("labels.json"))["competition_labels"] == list(range(7, -1, -1))
        stored_bytes = archive.getinfo("variables/variables.data-00000-of-00001").file_size
    assert {"model.py", "saved_model.pb", "labels.json"} <= set(names)
    assert "bloodauto" not in source
    assert stored_bytes < 1.2 * 4 * model.count_params() + 5000, "every weight once, not twice"


@pytest.mark.slow
def test_submission_predicts_without_the_project_from_another_folder(submission, model, make, run_bare, tmp_path):
    unpacked = tmp_path / "unpacked"
    with zipfile.ZipFile(submission) as archive:
        archive.extractall(unpacked)
    images = make.images(70, 96)
    working_folder = tmp_path / "working_folder"
    working_folder.mkdir()
    np.save(working_folder / "images.npy", images)
    run_bare(
        f"sys.path.insert(0, {str(unpacked)!r})\n"
        "import numpy as np\n"
        "from model import Model\n"
        "X = np.load('images.npy')\n"
        "model = Model()\n"
        "labels = model.predict(X)\n"
        "assert labels.shape == (70,) and labels.dtype == np.int64, (labels.shape, labels.dtype)\n"
        "for kind in ('float32', 'float64', 'int64'):\n"
        "    assert (model.predict(X[:5].astype(kind)) == labels[:5]).all(), kind\n"
        "assert model.predict(X[:0]).shape == (0,)\n"
        "for kind in ('uint8', 'int64', 'float64'):\n"
        "    larger = X[:5].repeat(2, axis=1).repeat(2, axis=2).astype(kind)\n"
        "    assert (model.predict(larger) == labels[:5]).all(), kind\n"
        "try:\n"
        "    model.predict(X[0])\n"
        "except ValueError as error:\n"
        "    assert '(96, 96, 3)' in str(error)\n"
        "else:\n"
        "    raise SystemExit('a single image passed')\n"
        "assert 'bloodauto' not in sys.modules\n"
        "np.save('labels.npy', labels)\n",
        working_folder,
    )
    expected = 7 - model.predict(images, verbose=0).argmax(axis=1)
    assert len(set(expected)) > 2
    np.testing.assert_array_equal(np.load(working_folder / "labels.npy"), expected)


def test_the_check_compares_competition_labels(submission, model, make):
    images = make.images(6, 96)
    probabilities = model.predict(images, verbose=0)
    labels = labels_of(model, CLASS_NAMES)
    CodabenchExporter().check(submission, labels, ParitySample(images, probabilities, 1e-4))
    with pytest.raises(RunError, match="of 6 differ"):
        CodabenchExporter().check(submission, labels, ParitySample(images, probabilities[:, ::-1], 1e-4))


def test_the_check_leaves_out_images_between_two_classes(submission, model, make):
    images = make.images(6, 96)
    undecided = np.full((6, 8), 1 / 8)
    CodabenchExporter().check(submission, labels_of(model, CLASS_NAMES), ParitySample(images, undecided, 1e-4))


@pytest.mark.parametrize(("size_px", "interpolation"), [(130, cv2.INTER_AREA), (60, cv2.INTER_LINEAR)])
def test_images_of_another_size_are_resized_as_the_loader_does(submission, make, tmp_path, size_px, interpolation):
    with zipfile.ZipFile(submission) as archive:
        archive.extractall(tmp_path)
    spec = importlib.util.spec_from_file_location("submitted_model", tmp_path / "model.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    images = make.images(2, size_px)
    resized = module.Model()._network_input(images).numpy().astype(int)
    expected = np.stack([cv2.resize(image, (96, 96), interpolation=interpolation) for image in images]).astype(int)
    assert np.abs(resized - expected).max() <= 1
