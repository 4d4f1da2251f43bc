"""Exports an ensemble within the time that is left: the most needed files first, then the held-out test and the others."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

import numpy as np

from bloodauto.clock import SYSTEM_CLOCK, Clock
from bloodauto.config.recipe import load_recipe
from bloodauto.data.dataset import CellDataset
from bloodauto.data.split import Splits
from bloodauto.ensemble.assemble import Caps, read_ensemble, restricted
from bloodauto.errors import RunError
from bloodauto.evaluation.latency import recipe_latency_ms, single_image_latency_ms
from bloodauto.export.built_ensemble import BuiltEnsemble, build_ensemble
from bloodauto.export.ensemble_model import TtaTransform
from bloodauto.export.final_test import EvaluationTime, evaluate_held_out_test, read_held_out_test
from bloodauto.export.formats import check_formats
from bloodauto.export.labels import labels_of
from bloodauto.export.model_card import CardFacts, MemberFacts, ScoreFacts, TrainingDataFacts
from bloodauto.export.ood import fit_ood_detector
from bloodauto.export.result_pictures import PicturedEnsemble
from bloodauto.export.tta_evaluation import TtaGain
from bloodauto.export.write import ExportResult, ModelPackage, write_export
from bloodauto.run.artifacts import DistillationResult, Ensemble, HeldOutTest, OodEvaluation
from bloodauto.run.directory import RunDirectory
from bloodauto.run.training_directory import TrainingDirectory
from bloodauto.types import Images, Probabilities

#: Writing the model card again, as a fraction of building the model and writing its first format.
_CARD_FRACTION = 0.1
#: The held-out test may take a moment longer than its limit, and must not cost a format.
_FORMATS_MARGIN = 1.3
#: Fitting the OOD detector takes less than this many times the seconds of building the model. The model is written before.
_OOD_FIT_TIME_FACTOR = 3.0
#: Drawing the pictures of the report takes less than this many times the seconds of building the model and writing a format.
_PICTURES_TIME_FACTOR = 2.0


@dataclass(frozen=True)
class ExportSettings:
    """What is exported, and in which formats.

    Attributes:
        ensemble: its networks' files lie in the run.
        formats: names of ``formats.EXPORTERS``.
        seed: of the run.
        tta: whether the model averages over test-time transforms; see ``build_ensemble``.
        caps: tighter ones than the ensemble was selected under; None: none.
        target: unlabelled images of the target domain, uint8 (k, height, width, 3); see ``build_ensemble``.
        distilled: where the ensemble is a student, what the distillation came to; else None.
    """

    ensemble: Ensemble
    formats: tuple[str, ...]
    seed: int
    tta: bool = False
    caps: Caps | None = None
    target: Images | None = None
    distilled: DistillationResult | None = None

    @property
    def is_as_selected(self) -> bool:
        """Whether the ensemble is exported as it was selected. The held-out test set is kept for that."""
        return self.caps is None and self.target is None and self.distilled is None


@dataclass(frozen=True)
class Exported:
    """The result of an export.

    Attributes:
        result: the files.
        gain: what test-time augmentation changes; None without.
        skipped: what there was no time for: formats, and ``test``.
        distilled: where a student was exported, what the distillation came to.
        pictured: what the report's pictures are still to be drawn of; None where nothing is pending.
        pictures_seconds: wall seconds that drawing them takes at most, as far as is known.
    """

    result: ExportResult
    gain: TtaGain | None
    skipped: tuple[str, ...] = ()
    distilled: DistillationResult | None = None
    pictured: PicturedEnsemble | None = None
    pictures_seconds: float = 0.0


def export_run(
    run: RunDirectory,
    output: Path,
    dataset: CellDataset,
    splits: Splits,
    settings: ExportSettings,
    *,
    seconds_left: Callable[[], float] | None = None,
    clock: Clock = SYSTEM_CLOCK,
) -> Exported:
    """Builds an ensemble, evaluates it once on the held-out test set, and writes model, labels, card and other formats.

    The first format is written first. Each further step begins only when the seconds left will probably suffice, and a
    later export does what was skipped. The card states what is known at each point.

    Args:
        run: gets ``test.json``, and ``ood.json`` with what the OOD detector does.
        output: the folder of the export.
        dataset: the images of the run.
        splits: of the run.
        settings: what is exported.
        seconds_left: wall seconds until the budget is spent; None: no limit.
        clock: measures the steps.

    Raises:
        UserError: an unknown format.
        RunError: missing files of a member, caps that no member keeps, or a written file that predicts otherwise than the
            search.
    """
    first, *others = check_formats(settings.formats)
    if settings.caps is not None:
        latency_ms = functools.partial(
            recipe_latency_ms,
            num_classes=len(dataset.class_names),
            image_shape_px=dataset.images.shape[1:3],
            clock=clock,
        )
        settings = replace(settings, ensemble=restricted(settings.ensemble, settings.caps, latency_ms))
    export = _Export(run, output, dataset, splits, settings, clock)
    remaining = seconds_left if seconds_left is not None else lambda: math.inf
    export.write([first])
    export.fit_ood_detector(remaining, num_pending=len(others))
    export.evaluate_held_out_test(remaining, num_pending=len(others))
    skipped = export.write_affordable(others, remaining)
    return Exported(
        export.result,
        export.built.gain,
        tuple(skipped),
        pictured=export.pictured,
        pictures_seconds=export.pictures_seconds,
    )


def check_exportable(run: RunDirectory) -> None:
    """Checks that a run has an ensemble whose weights are there.

    Raises:
        RunError: it has not.
    """
    for member in read_ensemble(run).members:
        for trained in member.networks:
            if not trained.files.weights.exists:
                raise RunError(f"{trained.folder}: expected the weights of a member of the ensemble, found none.")


class _Export:
    """An export under way: the model, what was written so far, and how long that took.

    Attributes:
        built: the model.
        result: what was written so far.
    """

    def __init__(
        self,
        run: RunDirectory,
        output: Path,
        dataset: CellDataset,
        splits: Splits,
        settings: ExportSettings,
        clock: Clock,
    ) -> None:
        self._run, self._output, self._dataset, self._splits = run, output, dataset, splits
        self._settings, self._clock = settings, clock
        self._start = clock.now()
        self.built = build_ensemble(
            settings.ensemble,
            dataset,
            splits,
            seed=settings.seed,
            tta=settings.tta,
            target=settings.target,
            clock=clock,
        )
        labels = labels_of(self.built.model, dataset.class_names, self.built.ensemble.abstention.rule)
        self._package = ModelPackage(self.built.model, labels, self.built.sample)
        self._ood_evaluation: OodEvaluation | None = None
        self._test_probabilities: Probabilities | None = None
        self._latency_ms = single_image_latency_ms(self.built.model, clock=clock)
        self._building_seconds = clock.now() - self._start
        self._format_seconds = math.inf
        self._written: list[str] = []
        self._card_is_outdated = False
        self.result = ExportResult((), None)

    def write(self, formats: Sequence[str]) -> None:
        """Writes formats, and the card anew."""
        result = write_export(self._output, self._package, self._card_facts(), formats, existing_formats=self._written)
        if not self._written:
            # Building the model, and writing and reading one format. Another format takes no longer, the card far less.
            self._format_seconds = self._clock.now() - self._start
        self._written += formats
        self._card_is_outdated = False
        difference = self.result.parity_difference
        self.result = ExportResult(
            tuple(dict.fromkeys((*self.result.files, *result.files))),
            result.parity_difference if difference is None else difference,
        )

    def fit_ood_detector(self, seconds_left: Callable[[], float], *, num_pending: int) -> None:
        """Fits the OOD detector where the time suffices for it and the pending formats; the next ``write`` writes it."""
        needed = self._format_seconds * num_pending + _OOD_FIT_TIME_FACTOR * self._building_seconds
        if seconds_left() > needed:
            detector, self._ood_evaluation = fit_ood_detector(
                self.built.model,
                self._dataset.images,
                self._dataset.labels,
                self._splits.train_index(0),
                self._splits.validation_index(0),
                seed=self._settings.seed,
            )
            self._package = replace(self._package, ood_detector=detector)
            self._card_is_outdated = True
        if self._settings.is_as_selected and not self._settings.tta:
            # An evaluation from an earlier export belongs to another detector.
            self._run.ood_evaluation.delete()
            if self._ood_evaluation is not None:
                self._run.ood_evaluation.write(self._ood_evaluation)

    def evaluate_held_out_test(self, seconds_left: Callable[[], float], *, num_pending: int) -> None:
        """Evaluates the ensemble on the held-out test set where nobody did and the time suffices.

        The test comes before the pending formats and the report's pictures, which come before additional simulated sites.
        """
        if not self._test_is_pending:
            return
        self._test_probabilities = evaluate_held_out_test(
            self._run,
            self.built.model_without_tta,
            self._settings.ensemble.ensemble_id,
            self._dataset,
            self._splits,
            seed=self._settings.seed,
            time=EvaluationTime(
                seconds=seconds_left() - _CARD_FRACTION * self._format_seconds,
                reserved_seconds=_FORMATS_MARGIN * self._format_seconds * num_pending + self.pictures_seconds,
            ),
            clock=self._clock,
        )
        self._card_is_outdated |= self._run.held_out_test.exists

    def write_affordable(self, formats: Sequence[str], seconds_left: Callable[[], float]) -> list[str]:
        """Writes those formats that the time suffices for, and the card where something was added to it.

        Returns:
            What was skipped: formats, and ``test`` where the held-out test is still pending.
        """
        affordable = [
            name for number, name in enumerate(formats, start=1) if seconds_left() > number * self._format_seconds
        ]
        if affordable or self._card_is_outdated:
            self.write(affordable)
        skipped = [name for name in formats if name not in affordable]
        return [*skipped, "test"] if self._test_is_pending else skipped

    @property
    def pictured(self) -> PicturedEnsemble | None:
        """What the report's pictures are still to be drawn of; None where nothing is pending."""
        # The held-out test set is predicted for its evaluation before anything of it is shown.
        if self._test_is_pending or not self._pictures_are_pending:
            return None
        return PicturedEnsemble(
            self.built.model_without_tta,
            self._settings.ensemble,
            self._package.ood_detector,
            self._test_probabilities,
            self._settings.seed,
        )

    @property
    def pictures_seconds(self) -> float:
        """What drawing the pictures takes; 0 where they are not drawn."""
        return _PICTURES_TIME_FACTOR * self._format_seconds if self._pictures_are_pending else 0.0

    @property
    def _pictures_are_pending(self) -> bool:
        """Whether the run has an ensemble, and no pictures of it."""
        if not self._settings.is_as_selected or self._settings.tta or not self._run.ensemble.exists:
            return False
        known = self._run.result_pictures.read_if_exists()
        return known is None or known.ensemble != self._settings.ensemble.ensemble_id

    @property
    def _test_is_pending(self) -> bool:
        has_test_images = len(self._splits.test_index()) > 0
        return self._settings.is_as_selected and has_test_images and not self._run.held_out_test.exists

    def _card_facts(self) -> CardFacts:
        ensemble = self.built.ensemble
        test = read_held_out_test(self._run, self._settings.ensemble.ensemble_id)
        return CardFacts(
            members=_member_facts(self.built),
            calibration=ensemble.calibration,
            abstention=ensemble.abstention,
            latency_ms=self._latency_ms,
            scores=(*_validation_scores(ensemble), *_test_scores(test, has_tta=self.built.gain is not None)),
            training_data=_training_data(self._dataset, self._splits),
            written_with=", ".join(f"{name} {version(name)}" for name in ("bloodauto", "keras", "tensorflow")),
            test=test,
            tta_gain=self.built.gain,
            selection_bias=ensemble.selection_bias,
            candidate_counts=ensemble.candidate_counts,
            ood_evaluation=self._ood_evaluation,
            distilled=self._settings.distilled,
        )


def _member_facts(built: BuiltEnsemble) -> tuple[MemberFacts, ...]:
    return tuple(
        MemberFacts(
            name=member.name,
            description=_describe([trained.folder for trained in member.networks]),
            weight=member.weight,
            parameters=member.parameters,
            tta=tta,
        )
        for member, tta in zip(built.ensemble.members, _tta_of_members(built), strict=True)
    )


def _tta_of_members(built: BuiltEnsemble) -> list[tuple[TtaTransform, ...]]:
    """Of each member of the ensemble; the networks of its folds have one recipe."""
    num_networks = [len(member.networks) for member in built.ensemble.members]
    first_networks = np.cumsum([0, *num_networks[:-1]])
    return [built.members[first].tta for first in first_networks]


def _describe(folders: Sequence[Path]) -> str:
    """The networks of a member in a few words."""
    recipe = load_recipe(TrainingDirectory(folders[0]).recipe)
    averaged = [TrainingDirectory(folder).result.read().averaged_epochs for folder in folders]
    is_averaged = any(epochs is not None and epochs.adopted for epochs in averaged)
    weights = ", weights averaged over its last epochs" if is_averaged else ""
    per_fold = f", one network for each of {len(folders)} folds" if len(folders) > 1 else ""
    return f"{recipe.backbone.label} at {recipe.input.size_px} px{weights}{per_fold}"


def _validation_scores(ensemble: Ensemble) -> list[ScoreFacts]:
    clean, shifted = "validation images (the ensemble was selected on them)", "shifted validation images"
    scores = ensemble.scores
    rows = (
        (clean, "accuracy", scores.accuracy, ensemble.images),
        (clean, "expected calibration error", scores.ece, ensemble.images),
        (shifted, "accuracy", scores.shifted_accuracy, ensemble.shifted_images),
        (shifted, "expected calibration error", scores.ece_shifted, ensemble.shifted_images),
    )
    return [ScoreFacts(source, name, value, None, images) for source, name, value, images in rows if value is not None]


def _test_scores(test: HeldOutTest | None, *, has_tta: bool) -> list[ScoreFacts]:
    if test is None:
        return []
    without = ", without test-time augmentation" if has_tta else ""
    clean, shifted = f"held-out test set{without}", f"shifted held-out test set{without}"
    interval = (test.accuracy_low, test.accuracy_high)
    return [
        ScoreFacts(clean, "accuracy", test.accuracy, interval, test.images),
        ScoreFacts(clean, "expected calibration error", test.ece, None, test.images),
        ScoreFacts(shifted, "accuracy", test.shifted_accuracy, None, test.shifted_images),
        ScoreFacts(shifted, "expected calibration error", test.ece_shifted, None, test.shifted_images),
    ]


def _training_data(dataset: CellDataset, splits: Splits) -> TrainingDataFacts:
    counts = dataset.class_counts(splits.fold >= 0)
    return TrainingDataFacts(dataset.source, dataset.digest(), tuple(counts.tolist()))
