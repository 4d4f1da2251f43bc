import importlib.util
import json
import zipfile

import cv2
import numpy as np
import pytest

from bloodauto.data.dataset import COMPETITION_CLASSES
from bloodauto.errors import RunError
from bloodauto.export.codabench import check_submission, write_submission
from bloodauto.export.keras_model import Member, TtaTransform, build_export
from bloodauto.export.labels import competition_labels, labels_of


@pytest.fixture(scope="module")
def model(make):
    tta = (TtaTransform("identity", 0.5), TtaTransform("turn_180", 0.5))
    members = [Member(make.stir(make.small(size_px=96, classes=8), seed), 0.5, tta=tta) for seed in (1, 2)]
    return build_export(members)


@pytest.fixture(scope="module")
def submission(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("submission") / "submission.zip"
    # Not the competition's order: the zip must turn outputs into the competition's numbers.
    write_submission(model, labels_of(model, COMPETITION_CLASSES[::-1]), path)
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
    assert [file.name for file in submission.parent.iterdir()] == ["submission.zip"]


@pytest.mark.slow
def test_submission_answers_without_the_project_from_another_folder(submission, model, make, run_bare, tmp_path):
    unpacked = tmp_path / "unpacked"
    with zipfile.ZipFile(submission) as archive:
        archive.extractall(unpacked)
    images = make.images(70, 96)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    np.save(elsewhere / "images.npy", images)
    run_bare(
        f"sys.path.insert(0, {str(unpacked)!r})\n"
        "import numpy as np\n"
        "from model import Model\n"
        "X = np.load('images.npy')\n"
        "model = Model()\n"
        "found = model.predict(X)\n"
        "assert found.shape == (70,) and found.dtype == np.int64, (found.shape, found.dtype)\n"
        "for kind in ('float32', 'float64', 'int64'):\n"
        "    assert (model.predict(X[:5].astype(kind)) == found[:5]).all(), kind\n"
        "assert model.predict(X[:0]).shape == (0,)\n"
        "for kind in ('uint8', 'int64', 'float64'):\n"
        "    larger = X[:5].repeat(2, axis=1).repeat(2, axis=2).astype(kind)\n"
        "    assert (model.predict(larger) == found[:5]).all(), kind\n"
        "try:\n"
        "    model.predict(X[0])\n"
        "except ValueError as error:\n"
        "    assert '(96, 96, 3)' in str(error)\n"
        "else:\n"
        "    raise SystemExit('a single image was let pass')\n"
        "assert 'bloodauto' not in sys.modules\n"
        "np.save('found.npy', found)\n",
        elsewhere,
    )
    wanted = 7 - model.predict(images, verbose=0).argmax(axis=1)
    assert len(set(wanted)) > 2
    np.testing.assert_array_equal(np.load(elsewhere / "found.npy"), wanted)


def test_check_passes_the_right_labels_and_refuses_others(submission, model, make):
    images = make.images(6, 96)
    probabilities = model.predict(images, verbose=0)
    check_submission(submission, images, probabilities, 1e-4)
    with pytest.raises(RunError, match="of 6 differ"):
        check_submission(submission, images, probabilities[:, ::-1], 1e-4)


@pytest.mark.parametrize(("size_px", "how"), [(130, cv2.INTER_AREA), (60, cv2.INTER_LINEAR)])
def test_images_of_another_size_are_resized_as_the_loader_does(submission, make, tmp_path, size_px, how):
    with zipfile.ZipFile(submission) as archive:
        archive.extractall(tmp_path)
    spec = importlib.util.spec_from_file_location("submitted_model", tmp_path / "model.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    images = make.images(2, size_px)
    found = module.Model()._plain(images).numpy().astype(int)
    wanted = np.stack([cv2.resize(image, (96, 96), interpolation=how) for image in images]).astype(int)
    assert np.abs(found - wanted).max() <= 1


def test_labels_are_the_competitions_where_the_classes_are():
    assert competition_labels(COMPETITION_CLASSES) == tuple(range(8))
    swapped = ("Eosinophil", "basophil ", *COMPETITION_CLASSES[2:])
    assert competition_labels(swapped) == (1, 0, 2, 3, 4, 5, 6, 7)
    assert competition_labels(("cat", "dog")) == (0, 1)
