"""What a search needs beyond the machine: TensorFlow, its devices, weights, the study's storage, and a training that works."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

from bloodauto.clock import SYSTEM_CLOCK, Clock
from bloodauto.config.machine import count_local_gpus
from bloodauto.config.shipped import find_space
from bloodauto.config.space import covering_recipes, load_space
from bloodauto.models.backbone_networks import imagenet_weights_paths
from bloodauto.models.tensorflow import import_keras_quietly, import_tensorflow_quietly
from bloodauto.models.weights_file import check_weights_file
from bloodauto.run.artifacts import EpochReport
from bloodauto.run.study_reader import mask_passwords
from bloodauto.tuning.study import check_storage
from bloodauto.workflows.doctor import Check, guarded
from bloodauto.workflows.train import train

#: The recipe of the training, in its smoke variant, and for how long it trains at least.
_RECIPE = "tiny_cnn"
_TRAINING_SECONDS = 2.0
_WEIGHTS_SITE = "https://keras.io/api/applications"


def training_checks(space: str, weights_dir: Path | None, storage: str | None) -> Iterator[Check]:
    """TensorFlow, pre-trained weights, storage, and two seconds of training.

    Args:
        space: Name or file of the search space whose weights are looked for.
        weights_dir: Folder of weights that is searched first; None: Keras' own cache alone.
        storage: URL of an Optuna storage; None: it is not checked.

    Yields:
        Checks, each as soon as it is done.
    """
    yield guarded("TensorFlow", _tensorflow, "pip install -c constraints.txt .")
    yield guarded("weights", lambda: _weights(space, weights_dir), "Check --space and --weights-dir.")
    if storage is not None:
        yield guarded("storage", lambda: _storage(storage), "Start the server, or leave --storage out for SQLite.")
    yield guarded("training", lambda: _training(SYSTEM_CLOCK), "bloodauto train tiny_cnn --smoke --debug")


def _tensorflow() -> Check:
    tensorflow = import_tensorflow_quietly()
    usable, listed = len(tensorflow.config.list_physical_devices("GPU")), count_local_gpus()
    keras_version = import_keras_quietly().__version__
    finding = f"TensorFlow {tensorflow.__version__}, Keras {keras_version}, {usable} of {listed} GPUs usable"
    if usable < listed:
        return Check("TensorFlow", "fail", finding, "pip install 'bloodauto[cuda]', and check CUDA_VISIBLE_DEVICES")
    return Check("TensorFlow", "ok", finding if listed else finding.rpartition(",")[0])


def _weights(space: str, weights_dir: Path | None) -> Check:
    loaded = load_space(find_space(space))
    backbones = {recipe.backbone.name for recipe in covering_recipes(loaded) if recipe.backbone.weights == "imagenet"}
    if not backbones:
        return Check("weights", "ok", f"the space {loaded.name} needs none")
    absent = []
    for name in sorted(backbones):
        files = [path for path in imagenet_weights_paths(name, weights_dir) if path.is_file()]
        if files:
            check_weights_file(files[0])
        else:
            absent.append(name)
    finding = f"{len(backbones) - len(absent)} of {len(backbones)} backbones of the space {loaded.name}"
    if absent:
        mend = (
            "Keras downloads them when a search starts; without a network copy them from another machine "
            f"({_WEIGHTS_SITE}) and pass --weights-dir DIR"
        )
        return Check("weights", "warn", f"{finding}; not yet: {', '.join(absent)}", mend)
    return Check("weights", "ok", finding)


def _storage(storage: str) -> Check:
    check_storage(storage)
    return Check("storage", "ok", f"{mask_passwords(storage)} can be opened")


def _training(clock: Clock) -> Check:
    started = clock.now()
    reports: list[EpochReport] = []
    with tempfile.TemporaryDirectory(prefix="bloodauto-") as folder:
        train(
            _RECIPE,
            run_dir=Path(folder) / "run",
            smoke=True,
            report=reports.append,
            should_stop=lambda: bool(reports) and sum(report.seconds for report in reports) >= _TRAINING_SECONDS,
        )
    seconds = clock.now() - started
    assert reports, "a training ends after an epoch at the earliest"
    epochs = f"{len(reports)} epoch{'s' if len(reports) > 1 else ''}"
    finding = f"{epochs} of {_RECIPE} on drawn cells in {seconds:.1f} s, start included"
    return Check("training", "ok", finding)
