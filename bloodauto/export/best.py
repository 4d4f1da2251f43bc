"""A run's ensemble -> its exported files, and the one look at the sealed test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

import keras
import numpy as np

from bloodauto.data.cells import Cells
from bloodauto.data.split import Splits
from bloodauto.ensemble.assemble import Ensemble, Looked, Trained, looked_again, read_ensemble
from bloodauto.ensemble.calibration import apply_temperature, expected_calibration_error, wilson_interval
from bloodauto.errors import RunError
from bloodauto.export.keras_export import IDENTITY, Member, View, build_export, views_of
from bloodauto.export.looking import ViewGain, look_again, view_gain
from bloodauto.export.model_card import CardFacts, MemberFacts, ScoreFacts
from bloodauto.export.write import ExportResult, ParitySample, write_export
from bloodauto.files import RunDirectory, read_arrays, read_json, write_json
from bloodauto.recipe import STANDARD_VIEWS, load_recipe
from bloodauto.shift.score import score as shift_score
from bloodauto.shift.suite import ShiftSuite
from bloodauto.trial.checkpoint import read_weights
from bloodauto.trial.material import probabilities
from bloodauto.trial.metrics import confusion_matrix, measure
from bloodauto.trial.network import build_network
from bloodauto.trial.views import over_views

_PARITY_IMAGES = 32
_PREDICT_BATCH = 128


@dataclass(frozen=True)
class BuiltEnsemble:
    """The exported model in memory, with what the search says it must answer.

    Attributes:
        plain: the same without test-time views; the same object where there are none.
        gain: what the views change; None without views.
    """

    model: keras.Model
    plain: keras.Model
    ensemble: Ensemble
    members: tuple[Member, ...]
    sample: ParitySample
    gain: ViewGain | None


def build_ensemble(ensemble: Ensemble, cells: Cells, splits: Splits, *, seed: int, views: bool) -> BuiltEnsemble:
    """Builds the model of an ensemble.

    With ``views`` every member looks at those its recipe names, or all at ``STANDARD_VIEWS`` where no recipe names any;
    probabilities are averaged over them before they are calibrated, and the temperature is fitted anew to that.

    Raises:
        RunError: a member's files are missing, or do not belong to the images.
    """
    shape = cells.images.shape
    recipes = {one.name: load_recipe(one.folder / "recipe.yaml") for part in ensemble.members for one in part.networks}
    named = any(recipe.test_time_views for recipe in recipes.values())
    members = {}
    for part in ensemble.members:
        for one in part.networks:
            recipe = recipes[one.name]
            network = build_network(
                recipe,
                num_classes=len(cells.class_names),
                image_shape_px=(shape[1], shape[2]),
                weights_file=None,
                to_train=False,
            )
            network.set_weights(read_weights(one.folder / "best.npz"))
            looks = views_of(recipe.test_time_views if named else STANDARD_VIEWS) if views else IDENTITY
            members[one.name] = Member(network, part.weight / len(part.networks), views=looks)
    everyone = tuple(members.values())
    plain = build_export([replace(member, views=IDENTITY) for member in everyone], temperature=ensemble.temperature)
    if not views:
        return BuiltEnsemble(plain, plain, ensemble, everyone, _parity_sample(ensemble, cells, members, None), None)
    looked = look_again(ensemble, members, cells, splits, seed=seed)
    calibrated = looked_again(ensemble, looked)
    model = build_export(everyone, temperature=calibrated.temperature)
    sample = _parity_sample(calibrated, cells, members, looked)
    gain = view_gain(ensemble, looked, everyone, (model, plain), sample.images)
    return BuiltEnsemble(model, plain, calibrated, everyone, sample, gain)


def _parity_sample(
    ensemble: Ensemble, cells: Cells, members: Mapping[str, Member], looked: Looked | None
) -> ParitySample:
    """Validation images, and the average of what the networks answered for them when they were trained or looked again.

    With a network per fold no image was answered by all of them; there the networks are asked anew, one by one.
    """
    first = read_arrays(ensemble.members[0].networks[0].folder / "predictions.npz")
    spread = np.linspace(0, len(first["index"]) - 1, min(_PARITY_IMAGES, len(first["index"]))).round().astype(int)
    images = cells.images[first["index"][spread]]
    by_fold = any(len(member.networks) > 1 for member in ensemble.members)

    def answers(one: Trained) -> np.ndarray:
        if by_fold:
            shares = {view.name: view.share for view in members[one.name].views}
            return probabilities(over_views(members[one.name].network, shares), images)
        stored = read_arrays(one.folder / "predictions.npz") if looked is None else looked[one.name]
        return np.asarray(stored["clean"][spread])

    trained = [one for member in ensemble.members for one in member.networks]
    average = sum(members[one.name].weight * answers(one).astype(np.float64) for one in trained)
    return ParitySample(images, apply_temperature(np.asarray(average), ensemble.temperature), _tolerance())


def _tolerance() -> float:
    """Workers on a GPU train in half precision, the export computes in float32; see ``check_parity``."""
    return 1e-3


def predict_batches(model: keras.Model, images: np.ndarray) -> np.ndarray:
    """Probabilities of the exported model, float32 (n, c)."""
    return np.asarray(model.predict(images, batch_size=_PREDICT_BATCH, verbose=0))


def open_sealed_test(run: RunDirectory, model: keras.Model, cells: Cells, splits: Splits, *, seed: int) -> None:
    """Judges a model without test-time views on the sealed test images and writes ``test.json``.

    Does nothing when that was done: the test is opened once.
    """
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


def _card(run: RunDirectory, built: BuiltEnsemble, cells: Cells, splits: Splits) -> CardFacts:
    ensemble = built.ensemble
    members = tuple(
        MemberFacts(
            name=member.name,
            description=_describe(member.networks[0].folder, len(member.networks)),
            weight=member.weight,
            temperature=1.0,
            parameters=member.parameters,
            views=looks,
        )
        for member, looks in zip(ensemble.members, _views_of_members(built), strict=True)
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
        without = ", without views" if built.gain is not None else ""
        test = read_json(run.test_result)
        interval = (test["accuracy_low"], test["accuracy_high"])
        scores += [
            ScoreFacts(
                f"same laboratory, sealed test images{without}", "accuracy", test["accuracy"], interval, test["images"]
            ),
            ScoreFacts(
                f"shifted views of the sealed test images{without}",
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
        view_gain=built.gain,
        scores=tuple(scores),
        data_source=cells.source,
        data_digest=cells.digest(),
        training_images=len(kept),
        class_counts=tuple(int(count) for count in counts),
        written_with=", ".join(f"{name} {version(name)}" for name in ("bloodauto", "keras", "tensorflow")),
    )


def _views_of_members(built: BuiltEnsemble) -> list[tuple[View, ...]]:
    """Of each member of the ensemble; the networks of its folds have one recipe."""
    firsts = np.cumsum([0, *(len(member.networks) for member in built.ensemble.members[:-1])])
    return [built.members[first].views for first in firsts]


def _describe(folder: Path, networks: int) -> str:
    recipe = load_recipe(folder / "recipe.yaml")
    often = f", one network for each of {networks} folds" if networks > 1 else ""
    return f"{recipe.backbone.name} at {recipe.input.size_px} px{often}"


@dataclass(frozen=True)
class Exported:
    """The files written, and what the views change; None without views."""

    result: ExportResult
    gain: ViewGain | None


def export_run(
    run: RunDirectory,
    output: Path,
    cells: Cells,
    splits: Splits,
    formats: Sequence[str],
    *,
    seed: int,
    views: bool = False,
    ensemble: Ensemble | None = None,
) -> Exported:
    """Builds an ensemble, looks once at the sealed test, and writes model, labels, card and further formats.

    Args:
        run: keeps ``test.json``.
        views: whether the model averages over test-time views; see ``build_ensemble``.
        ensemble: None: the run's own.

    Raises:
        UserError: an unknown format.
        RunError: no ensemble yet, or the written file answers otherwise than the search did.
    """
    chosen = read_ensemble(run) if ensemble is None else ensemble
    built = build_ensemble(chosen, cells, splits, seed=seed, views=views)
    open_sealed_test(run, built.plain, cells, splits, seed=seed)
    facts = _card(run, built, cells, splits)
    result = write_export(output, built.model, cells.class_names, facts, formats, built.sample)
    return Exported(result, built.gain)


def check_exportable(run: RunDirectory) -> None:
    """Raises:
    RunError: the run has no ensemble yet.
    """
    ensemble = read_ensemble(run)
    for member in ensemble.members:
        for trained in member.networks:
            if not (trained.folder / "best.npz").is_file():
                raise RunError(f"{trained.folder}: expected the weights of a member of the ensemble, found none.")
