"""A run's ensemble -> its exported files, and the one look at the sealed test."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import keras
import numpy as np

from bloodauto.data.cells import Cells
from bloodauto.data.split import Splits
from bloodauto.ensemble.assemble import Ensemble, read_ensemble
from bloodauto.ensemble.calibration import apply_temperature, expected_calibration_error, wilson_interval
from bloodauto.errors import RunError
from bloodauto.export.keras_export import Member, View, build_export
from bloodauto.export.model_card import CardFacts, MemberFacts, ScoreFacts
from bloodauto.export.write import ExportResult, ParitySample, write_export
from bloodauto.files import RunDirectory, read_arrays, read_json, write_json
from bloodauto.recipe import load_recipe
from bloodauto.shift.score import score as shift_score
from bloodauto.shift.suite import ShiftSuite
from bloodauto.trial.checkpoint import read_weights
from bloodauto.trial.metrics import confusion_matrix, measure
from bloodauto.trial.network import build_network

_PARITY_IMAGES = 32
_PREDICT_BATCH = 128


@dataclass(frozen=True)
class BuiltEnsemble:
    """The exported model in memory, with what the search says it must answer."""

    model: keras.Model
    ensemble: Ensemble
    sample: ParitySample


def build_ensemble(run: RunDirectory, cells: Cells) -> BuiltEnsemble:
    """Builds the model of a run's ensemble.

    Raises:
        RunError: no ensemble yet, or a member's files are missing.
    """
    ensemble = read_ensemble(run)
    shape = cells.images.shape
    members = []
    for member in ensemble.members:
        for trained in member.networks:
            recipe = load_recipe(trained.folder / "recipe.yaml")
            network = build_network(
                recipe,
                num_classes=len(cells.class_names),
                image_shape_px=(shape[1], shape[2]),
                weights_file=None,
                to_train=False,
            )
            network.set_weights(read_weights(trained.folder / "best.npz"))
            members.append(Member(network, member.weight / len(member.networks)))
    model = build_export(members, temperature=ensemble.temperature, views=(View("identity", 1.0),))
    return BuiltEnsemble(model, ensemble, _parity_sample(ensemble, cells, members))


def _parity_sample(ensemble: Ensemble, cells: Cells, members: Sequence[Member]) -> ParitySample:
    """Validation images, and the average of what the workers answered for them when they trained.

    With a network per fold no image was answered by all of them; there the networks are asked anew, one by one.
    """
    first = read_arrays(ensemble.members[0].networks[0].folder / "predictions.npz")
    spread = np.linspace(0, len(first["index"]) - 1, min(_PARITY_IMAGES, len(first["index"]))).round().astype(int)
    images = cells.images[first["index"][spread]]
    if all(len(member.networks) == 1 for member in ensemble.members):
        average = sum(
            member.weight
            * read_arrays(member.networks[0].folder / "predictions.npz")["clean"][spread].astype(np.float64)
            for member in ensemble.members
        )
    else:
        average = sum(
            member.weight * np.asarray(keras.ops.softmax(member.network.predict(images, verbose=0)), dtype=np.float64)
            for member in members
        )
    return ParitySample(images, apply_temperature(np.asarray(average), ensemble.temperature), _tolerance())


def _tolerance() -> float:
    """Workers on a GPU train in half precision, the export computes in float32; see ``check_parity``."""
    return 1e-3


def predict_batches(model: keras.Model, images: np.ndarray) -> np.ndarray:
    """Probabilities of the exported model, float32 (n, c)."""
    return np.asarray(model.predict(images, batch_size=_PREDICT_BATCH, verbose=0))


def open_sealed_test(run: RunDirectory, model: keras.Model, cells: Cells, splits: Splits, *, seed: int) -> None:
    """Judges the exported model on the sealed test images and writes ``test.json``; does nothing when that was done."""
    index = splits.test_index()
    if run.test_result.is_file() or len(index) == 0:
        return
    labels, images = cells.labels[index], cells.images[index]
    probabilities = predict_batches(model, images)
    answers = probabilities.argmax(axis=1)
    # Other draws than the search's own suite, so that the views themselves are new too.
    plan = ShiftSuite(seed=seed + 1).plan(labels)
    shifted = predict_batches(model, plan.render(images))
    score = shift_score(labels, probabilities, plan, shifted)
    correct = int((answers == labels).sum())
    low, high = wilson_interval(correct, len(labels))
    metrics = measure(labels, probabilities)
    write_json(
        run.test_result,
        {
            "images": len(labels),
            "accuracy": metrics.accuracy,
            "accuracy_low": low,
            "accuracy_high": high,
            "balanced_accuracy": metrics.balanced_accuracy,
            "macro_f1": metrics.macro_f1,
            "loss": metrics.loss,
            "ece": expected_calibration_error(probabilities, labels),
            "confusion": confusion_matrix(labels, answers, len(cells.class_names)).tolist(),
            "classes": list(cells.class_names),
            "shift": {group.name: group.accuracy for group in score.groups},
            "shifted_accuracy": float((shifted.argmax(axis=1) == labels[plan.image_index]).mean()),
            "shifted_views": len(plan),
        },
    )


def _card(run: RunDirectory, ensemble: Ensemble, cells: Cells, splits: Splits) -> CardFacts:
    members = tuple(
        MemberFacts(
            name=member.name,
            description=_describe(member.networks[0].folder, len(member.networks)),
            weight=member.weight,
            temperature=1.0,
            parameters=member.parameters,
        )
        for member in ensemble.members
    )
    scores = [
        ScoreFacts(
            "same laboratory, images the ensemble was chosen by",
            "accuracy",
            ensemble.scores["accuracy"],
            None,
            ensemble.images,
        ),
        ScoreFacts("shifted views of them", "accuracy", ensemble.scores["shifted_accuracy"], None, ensemble.views),
    ]
    if run.test_result.is_file():
        test = read_json(run.test_result)
        interval = (test["accuracy_low"], test["accuracy_high"])
        scores += [
            ScoreFacts("same laboratory, sealed test images", "accuracy", test["accuracy"], interval, test["images"]),
            ScoreFacts(
                "shifted views of the sealed test images",
                "accuracy",
                test["shifted_accuracy"],
                None,
                test["shifted_views"],
            ),
        ]
    kept = np.flatnonzero(splits.fold >= 0)
    counts = np.bincount(cells.labels[kept], minlength=len(cells.class_names))
    return CardFacts(
        members=members,
        temperature=ensemble.temperature,
        views=(View("identity", 1.0),),
        scores=tuple(scores),
        data_source=cells.source,
        data_digest=cells.digest(),
        training_images=len(kept),
        class_counts=tuple(int(count) for count in counts),
        written_with=", ".join(f"{name} {version(name)}" for name in ("bloodauto", "keras", "tensorflow")),
    )


def _describe(folder: Path, networks: int) -> str:
    recipe = load_recipe(folder / "recipe.yaml")
    often = f", one network for each of {networks} folds" if networks > 1 else ""
    return f"{recipe.backbone.name} at {recipe.input.size_px} px{often}"


def export_run(
    run: RunDirectory, output: Path, cells: Cells, splits: Splits, formats: Sequence[str], *, seed: int
) -> ExportResult:
    """Builds the run's ensemble, looks once at the sealed test, and writes model, labels, card and further formats.

    Raises:
        UserError: an unknown format.
        RunError: no ensemble yet, or the written file answers otherwise than the search did.
    """
    built = build_ensemble(run, cells)
    open_sealed_test(run, built.model, cells, splits, seed=seed)
    facts = _card(run, built.ensemble, cells, splits)
    return write_export(output, built.model, cells.class_names, facts, formats, built.sample)


def check_exportable(run: RunDirectory) -> None:
    """Raises:
    RunError: the run has no ensemble yet.
    """
    ensemble = read_ensemble(run)
    for member in ensemble.members:
        for trained in member.networks:
            if not (trained.folder / "best.npz").is_file():
                raise RunError(f"{trained.folder}: expected the weights of a member of the ensemble, found none.")
