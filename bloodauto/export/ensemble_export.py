"""A run's ensemble -> its exported files."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import keras
import numpy as np

from bloodauto.clock import SYSTEM_CLOCK
from bloodauto.config.recipe import DEFAULT_TTA_TRANSFORMS, load_recipe
from bloodauto.data.dataset import CellDataset
from bloodauto.data.split import Splits
from bloodauto.ensemble.assemble import Caps, TtaPredictions, restricted, with_tta_predictions
from bloodauto.ensemble.distilled import DistillationResult
from bloodauto.ensemble.record import Ensemble, TrainedNetwork, read_ensemble
from bloodauto.errors import RunError
from bloodauto.evaluation.inference import predict_batches
from bloodauto.evaluation.latency import recipe_latency_ms, single_image_latency_ms
from bloodauto.export.final_test import evaluate_held_out_test, read_held_out_test
from bloodauto.export.keras_model import IDENTITY, Member, TtaTransform, build_export, tta_transforms_of
from bloodauto.export.labels import AbstentionRule
from bloodauto.export.model_card import CardFacts, MemberFacts, ScoreFacts
from bloodauto.export.ood import OodDetector, OodEvaluation, fit_ood_detector
from bloodauto.export.tta_evaluation import TtaGain, predict_with_tta, tta_gain
from bloodauto.export.write import FORMATS, ExportResult, ParitySample, check_formats, write_export
from bloodauto.models.batch_norm import adapted_batch_norm_weights
from bloodauto.models.network import trained_network
from bloodauto.run.directory import RunDirectory
from bloodauto.run.files import read_arrays, read_json, write_json

_PARITY_IMAGES = 32
#: Writing the card again, as a share of building the model and writing its first file.
_CARD_FRACTION = 0.1
#: The test may take a moment longer than it was given, and must not cost a format.
_FORMATS_MARGIN = 1.3
#: Looking at four thousand images, over building the model, with room for a slow moment; the model is written before.
_OOD_FIT_TIME_FACTOR = 3.0
#: The statistics a network was trained with count as those of so many target images.
_SOURCE_IMAGES = 64


@dataclass(frozen=True)
class BuiltEnsemble:
    """The exported model in memory, with what the search says it must answer.

    Attributes:
        plain: the same without test-time transforms; the same object where there are none.
        gain: what the views change; None without views.
    """

    model: keras.Model
    plain: keras.Model
    ensemble: Ensemble
    members: tuple[Member, ...]
    sample: ParitySample
    gain: TtaGain | None


def build_ensemble(
    ensemble: Ensemble, dataset: CellDataset, splits: Splits, *, seed: int, tta: bool, target: np.ndarray | None = None
) -> BuiltEnsemble:
    """Builds the model of an ensemble.

    With ``views`` every member looks at those its recipe names, or all at ``DEFAULT_TTA_TRANSFORMS`` where no recipe names any;
    probabilities are averaged over them before they are calibrated, and the calibration is fitted anew to that.

    With ``target``, unlabelled images uint8 (k, h, w, 3), every network gets the batch-normalisation statistics that go with
    them (``adapted_batch_norm_weights``): better there, worse where it was trained. The calibration stays that of the training's
    laboratory, of which alone labels are known.

    Raises:
        RunError: a member's files are missing, or do not belong to the images.
    """
    shape = dataset.images.shape
    recipes = {one.name: load_recipe(one.folder / "recipe.yaml") for part in ensemble.members for one in part.networks}
    named = any(recipe.tta_transforms for recipe in recipes.values())
    members = {}
    for part in ensemble.members:
        for one in part.networks:
            recipe = recipes[one.name]
            network = trained_network(
                recipe,
                one.folder / "best.npz",
                num_classes=len(dataset.class_names),
                image_shape_px=(shape[1], shape[2]),
            )
            if target is not None:
                network.set_weights(adapted_batch_norm_weights(network, target, source_pseudo_count=_SOURCE_IMAGES))
            looks = tta_transforms_of(recipe.tta_transforms if named else DEFAULT_TTA_TRANSFORMS) if tta else IDENTITY
            members[one.name] = Member(network, part.weight / len(part.networks), tta=looks)
    everyone = tuple(members.values())
    plain = _model([replace(member, tta=IDENTITY) for member in everyone], ensemble)
    if not tta:
        sample = _parity_sample(ensemble, dataset, members, None, adapted=target is not None)
        return BuiltEnsemble(plain, plain, ensemble, everyone, sample, None)
    tta_predictions = predict_with_tta(ensemble, members, dataset, splits, seed=seed)
    calibrated = with_tta_predictions(ensemble, tta_predictions)
    model = _model(everyone, calibrated)
    sample = _parity_sample(calibrated, dataset, members, tta_predictions)
    gain = tta_gain(ensemble, tta_predictions, everyone, (model, plain), sample.images, clock=SYSTEM_CLOCK)
    return BuiltEnsemble(model, plain, calibrated, everyone, sample, gain)


def _model(members: Sequence[Member], ensemble: Ensemble) -> keras.Model:
    calibration = ensemble.calibration
    return build_export(members, temperature=calibration.temperature, per_class=calibration.per_class)


def _parity_sample(
    ensemble: Ensemble,
    dataset: CellDataset,
    members: Mapping[str, Member],
    tta_predictions: TtaPredictions | None,
    *,
    adapted: bool = False,
) -> ParitySample:
    """Validation images, and the average of what the networks answered for them when they were trained or looked again.

    With a network per fold no image was answered by all of them, and with adapted ones none at all; there the networks are
    asked anew, one by one.
    """
    first = read_arrays(ensemble.members[0].networks[0].folder / "predictions.npz")
    spread = np.linspace(0, len(first["index"]) - 1, min(_PARITY_IMAGES, len(first["index"]))).round().astype(int)
    images = dataset.images[first["index"][spread]]
    anew = adapted or any(len(member.networks) > 1 for member in ensemble.members)

    def answers(one: TrainedNetwork) -> np.ndarray:
        if anew:
            shares = {view.name: view.weight for view in members[one.name].tta}
            return predict_batches(members[one.name].network, images, tta=shares)
        stored = read_arrays(one.folder / "predictions.npz") if tta_predictions is None else tta_predictions[one.name]
        return np.asarray(stored["clean"][spread])

    trained = [one for member in ensemble.members for one in member.networks]
    average = sum(members[one.name].weight * answers(one).astype(np.float64) for one in trained)
    return ParitySample(images, ensemble.calibration.apply(np.asarray(average)), _tolerance())


def _tolerance() -> float:
    """Workers on a GPU train in half precision, the export computes in float32; see ``check_parity``."""
    return 1e-3


def _card(
    test: dict[str, Any] | None,
    built: BuiltEnsemble,
    dataset: CellDataset,
    splits: Splits,
    *,
    latency_ms: float,
    distilled: DistillationResult | None,
    ood_evaluation: OodEvaluation | None,
) -> CardFacts:
    ensemble = built.ensemble
    members = tuple(
        MemberFacts(
            name=member.name,
            description=_describe([one.folder for one in member.networks]),
            weight=member.weight,
            temperature=1.0,
            parameters=member.parameters,
            tta=looks,
        )
        for member, looks in zip(ensemble.members, _tta_of_members(built), strict=True)
    )
    scores = [
        ScoreFacts(
            "same laboratory, images the ensemble was chosen by",
            "accuracy",
            ensemble.scores["accuracy"],
            None,
            ensemble.images,
        ),
        ScoreFacts(
            "shifted views of them", "accuracy", ensemble.scores["shifted_accuracy"], None, ensemble.shifted_images
        ),
        ScoreFacts("images it was chosen by", "calibration error", ensemble.scores["ece"], None, ensemble.images),
        ScoreFacts(
            "shifted views of them", "calibration error", ensemble.scores["ece_shifted"], None, ensemble.shifted_images
        ),
    ]
    if test is not None:
        without = ", without views" if built.gain is not None else ""
        interval = (test["accuracy_low"], test["accuracy_high"])
        scores += [
            ScoreFacts(
                f"same laboratory, held-out test images{without}",
                "accuracy",
                test["accuracy"],
                interval,
                test["images"],
            ),
            ScoreFacts(
                f"shifted views of the held-out test images{without}",
                "accuracy",
                test["shifted_accuracy"],
                None,
                test["shifted_images"],
            ),
        ]
    kept = np.flatnonzero(splits.fold >= 0)
    counts = np.bincount(dataset.labels[kept], minlength=len(dataset.class_names))
    return CardFacts(
        members=members,
        calibration=ensemble.calibration,
        abstention=ensemble.abstention,
        winners_curse=ensemble.winners_curse,
        candidate_counts=ensemble.candidate_counts,
        distilled=distilled,
        ood_evaluation=ood_evaluation,
        latency_ms=latency_ms,
        test=test,
        tta_gain=built.gain,
        scores=tuple(scores),
        data_source=dataset.source,
        data_digest=dataset.digest(),
        training_images=len(kept),
        class_counts=tuple(int(count) for count in counts),
        written_with=", ".join(f"{name} {version(name)}" for name in ("bloodauto", "keras", "tensorflow")),
    )


def _tta_of_members(built: BuiltEnsemble) -> list[tuple[TtaTransform, ...]]:
    """Of each member of the ensemble; the networks of its folds have one recipe."""
    firsts = np.cumsum([0, *(len(member.networks) for member in built.ensemble.members[:-1])])
    return [built.members[first].tta for first in firsts]


def _describe(folders: Sequence[Path]) -> str:
    recipe = load_recipe(folders[0] / "recipe.yaml")
    often = f", one network for each of {len(folders)} folds" if len(folders) > 1 else ""
    averaged = [read_json(one / "result.json").get("averaged_epochs") for one in folders]
    taken = any(one is not None and one["adopted"] for one in averaged)
    weights = ", weights averaged over its last epochs" if taken else ""
    return f"{recipe.backbone.label} at {recipe.input.size_px} px{weights}{often}"


@dataclass(frozen=True)
class Exported:
    """The files written, what the views change (None without views), what there was no time for: formats, ``test``.

    ``distilled``: where what was exported is a student of the ensemble.
    """

    result: ExportResult
    gain: TtaGain | None
    skipped: tuple[str, ...] = ()
    distilled: DistillationResult | None = None


def export_run(
    run: RunDirectory,
    output: Path,
    dataset: CellDataset,
    splits: Splits,
    formats: Sequence[str],
    *,
    seed: int,
    tta: bool = False,
    ensemble: Ensemble | None = None,
    caps: Caps | None = None,
    target: np.ndarray | None = None,
    seconds_left: Callable[[], float] | None = None,
    distilled: DistillationResult | None = None,
) -> Exported:
    """Builds an ensemble, looks once at the held-out test, and writes model, labels, card and further formats.

    What is needed most is written first; what follows is begun only when the seconds left will probably carry it, and a later
    export makes up for the rest. The card says what there is at each point.

    Args:
        run: keeps ``test.json``, and what the rule for marking images does in ``ood.json``.
        views: whether the model averages over test-time transforms; see ``build_ensemble``.
        ensemble: None: the run's own.
        caps: tighter ones than the ensemble was chosen under; None: none. The held-out test then stays closed, unless it has
            been opened: it is kept for what the search itself chose.
        target: see ``build_ensemble``; the held-out test stays closed likewise.
        seconds_left: wall seconds until the budget is spent; None: no limit.
        distilled: where the ensemble is a student, what it came to; the held-out test stays closed likewise.

    Raises:
        UserError: an unknown format.
        RunError: no ensemble yet, caps that no member keeps, or the written file answers otherwise than the search did.
    """
    wanted = check_formats(formats)
    chosen = read_ensemble(run) if ensemble is None else ensemble
    if caps is not None:
        latency_ms_of = functools.partial(
            recipe_latency_ms,
            num_classes=len(dataset.class_names),
            image_shape_px=dataset.images.shape[1:3],
            clock=SYSTEM_CLOCK,
        )
        chosen = restricted(chosen, caps, latency_ms_of)
    started = time.perf_counter()
    built = build_ensemble(chosen, dataset, splits, seed=seed, tta=tta, target=target)
    rule = built.ensemble.abstention
    abstention_rule = AbstentionRule(rule.confidence_score, rule.threshold)
    latency_ms = single_image_latency_ms(built.model, clock=SYSTEM_CLOCK)
    building_seconds = time.perf_counter() - started
    ood_detector: OodDetector | None = None
    ood_evaluation: OodEvaluation | None = None

    def write(formats: Sequence[str], written: Sequence[str]) -> ExportResult:
        test = read_held_out_test(run, chosen)
        facts = _card(
            test, built, dataset, splits, latency_ms=latency_ms, distilled=distilled, ood_evaluation=ood_evaluation
        )
        return write_export(
            output,
            built.model,
            dataset.class_names,
            abstention_rule,
            facts,
            formats,
            built.sample,
            written=written,
            ood_detector=ood_detector,
        )

    first, *others = sorted(wanted, key=tuple(FORMATS).index)
    result = write((first,), ())
    # Building the model and writing and reading back one format: another format takes no longer, the card alone far less.
    stage_seconds = time.perf_counter() - started
    seconds = (lambda: math.inf) if seconds_left is None else seconds_left
    if seconds() > stage_seconds * len(others) + _OOD_FIT_TIME_FACTOR * building_seconds:
        rows = splits.train_index(0), splits.validation_index(0)
        ood_detector, ood_evaluation = fit_ood_detector(built.model, dataset.images, dataset.labels, *rows, seed=seed)
    own = caps is None and target is None and distilled is None
    if own and not tta:
        # That of an earlier ensemble would tell of another rule.
        run.ood_evaluation.path.unlink(missing_ok=True)
        if ood_evaluation is not None:
            write_json(run.ood_evaluation.path, asdict(ood_evaluation))
    closed = own and len(splits.test_index()) > 0 and not run.held_out_test.path.is_file()
    if closed:
        # Better the test without the other formats than the other way round; better they than more laboratories.
        left, kept = seconds() - _CARD_FRACTION * stage_seconds, _FORMATS_MARGIN * stage_seconds * len(others)
        evaluate_held_out_test(
            run, built.plain, chosen, dataset, splits, seed=seed, seconds=left, reserved_seconds=kept
        )
    affordable = [one for number, one in enumerate(others, start=1) if seconds() > number * stage_seconds]
    still_closed = closed and not run.held_out_test.path.is_file()
    more = affordable or closed != still_closed or ood_detector is not None
    rest = write(affordable, (first,)) if more else result
    skipped = [one for one in others if one not in affordable] + (["test"] if still_closed else [])
    files = tuple(dict.fromkeys((*result.files, *rest.files)))
    return Exported(ExportResult(files, result.parity_difference), built.gain, tuple(skipped))


def check_exportable(run: RunDirectory) -> None:
    """Raises:
    RunError: the run has no ensemble yet.
    """
    ensemble = read_ensemble(run)
    for member in ensemble.members:
        for trained in member.networks:
            if not (trained.folder / "best.npz").is_file():
                raise RunError(f"{trained.folder}: expected the weights of a member of the ensemble, found none.")
