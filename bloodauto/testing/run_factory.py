"""Builds a run directory as a search leaves it, with a real Optuna study, without training anything.

For tests of whatever reads a run, in this project or in an extension of it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import optuna

from bloodauto.config.settings import SearchSettings, write_settings
from bloodauto.evaluation.metrics import compute_metrics, validation_figures
from bloodauto.run.artifacts import (
    Abstention,
    AbstentionRule,
    BestSingle,
    Calibration,
    CandidateCounts,
    CleaningReport,
    CleaningRow,
    Ensemble,
    EnsembleMember,
    EpochReport,
    ExternalEstimate,
    Fingerprint,
    HeldOutTest,
    LedgerCharge,
    ObjectiveAgreement,
    RiskCoverage,
    SelectionBias,
    SelectionStep,
    SelectiveAccuracy,
    SimulatedSiteResult,
    SplitPart,
    SplitsFile,
    TrainedNetwork,
    TrainingHistory,
    TrainingResult,
    ValidationPredictions,
    ValidationScores,
)
from bloodauto.run.artifacts.ensemble import NetworkKind
from bloodauto.run.directory import RunDirectory
from bloodauto.run.files import write_text
from bloodauto.run.study_attributes import SAMPLED, Outcome, TrialAttributes, initial_origin
from bloodauto.run.study_reader import sqlite_url
from bloodauto.run.training_directory import TrainingDirectory
from bloodauto.testing.run_pictures import make_data_pictures, make_result_pictures
from bloodauto.tuning.study import quiet_optuna

CLASSES = ("basophil", "eosinophil", "erythroblast", "ig", "lymphocyte", "monocyte", "neutrophil", "platelet")
RUNGS = (2, 6)
REFITS = ("00002-fold0-seed8", "00007-fold0-seed9")
EPOCHS = 12
_BUDGET = "2gpu-h"
_DIGEST = "5f" * 32
_PARAMETERS = 5_930_000
_VALIDATION_IMAGES = 400
_SHIFTED_IMAGES = 40
_EPOCH_SECONDS = 16.0
_INITIAL_TRIALS = 3


@dataclass(frozen=True)
class TrialPlan:
    """What becomes of a trial.

    Attributes:
        outcome: how it ends; None: it is still running.
        reason: of the outcome; empty where there is none.
        epochs: how many it trained.
    """

    outcome: Outcome | None
    reason: str
    epochs: int


def _plans(trials: int) -> list[TrialPlan]:
    """All outcomes, most of them complete or pruned, as in a search in progress."""
    cycle = [
        TrialPlan("complete", "", EPOCHS),
        TrialPlan("pruned", f"rung_{RUNGS[0]}", RUNGS[0]),
        TrialPlan("complete", "", EPOCHS),
        TrialPlan("pruned", f"rung_{RUNGS[1]}", RUNGS[1]),
        TrialPlan("complete", "", 9),
    ]
    plans = [cycle[index % len(cycle)] for index in range(trials - 1)]
    plans[4 % trials] = TrialPlan("failed", "nan", 1)
    plans[min(9 % trials, trials - 2)] = TrialPlan("failed", "out_of_memory", 0)
    plans[-2] = TrialPlan("out_of_budget", "epoch 3 of 12", 3)
    plans[-1] = TrialPlan(None, "", 2)
    return plans


def suggest_parameters(trial: optuna.trial.Trial) -> float:
    """Samples the parameters of a conditional recipe.

    Args:
        trial: suggests them.

    Returns:
        The objective that the recipe reaches in the end, without noise, 0-1.
    """
    backbone = trial.suggest_categorical("backbone.name", ["efficientnetv2-b0", "mobilenetv3-small", "resnet18"])
    magnitude = trial.suggest_float("augmentation.rand_augment.magnitude", 0.0, 1.0)
    policy = trial.suggest_categorical("backbone.batch_norm", ["frozen", "adaptive", "group"])
    rate = trial.suggest_float("stages.1.optimizer.learning_rate", 1e-5, 1e-2, log=True)
    optimizer = trial.suggest_categorical("stages.1.optimizer.name", ["adamw", "sgd"])
    if optimizer == "sgd":
        trial.suggest_float("stages.1.optimizer.momentum", 0.5, 0.99)
    trial.suggest_float("head.dropout", 0.0, 0.6)
    quality = (
        0.62 + 0.16 * math.exp(-((math.log10(rate) + 3.3) ** 2)) + 0.08 * math.exp(-(((magnitude - 0.6) / 0.3) ** 2))
    )
    quality += {"frozen": 0.0, "adaptive": 0.03, "group": 0.07}[policy]
    return quality + {"efficientnetv2-b0": 0.03, "mobilenetv3-small": 0.0, "resnet18": 0.01}[backbone]


def build_run(root: Path, *, trials: int = 30, finished: bool = True, classes: Sequence[str] = CLASSES) -> RunDirectory:
    """Writes a run with trials of all outcomes.

    Args:
        root: where; created.
        trials: how many trials, at least 5; the last one is waiting, the one before it running.
        finished: whether there are an ensemble, a held-out test and next steps.
        classes: class names.

    Example:
        >>> import tempfile
        >>> run = build_run(Path(tempfile.mkdtemp()) / "run", trials=8)
        >>> run.ensemble.read().metric
        'shift'
    """
    run = RunDirectory(root)
    root.mkdir(parents=True, exist_ok=True)
    factory = _Factory(run, tuple(classes))
    factory.write_data()
    with quiet_optuna():
        factory.write_trials(trials)
    settings = SearchSettings(
        data="cells.npz", space="blood", budget=_BUDGET, seed=7, workers=2, cpus_per_trial=4, gpus_per_trial=0.5
    )
    write_settings(run, settings)
    if finished:
        factory.write_results()
    return run


def make_predictions(rng: np.random.Generator, num_classes: int, accuracy: float) -> ValidationPredictions:
    """Overconfident predictions for the validation images, the same images in every call.

    Args:
        rng: of everything but the labels.
        num_classes: how many classes.
        accuracy: about how many are correct, 0-1.
    """
    labels = np.random.default_rng(11).integers(0, num_classes, _VALIDATION_IMAGES)
    logits = 0.6 * rng.standard_normal((_VALIDATION_IMAGES, num_classes))
    predicted = np.where(rng.random(_VALIDATION_IMAGES) < accuracy, labels, (labels + 1) % num_classes)
    logits[np.arange(_VALIDATION_IMAGES), predicted] += rng.uniform(2.0, 7.0, _VALIDATION_IMAGES)
    exponent = np.exp(logits - logits.max(axis=1, keepdims=True))
    clean = (exponent / exponent.sum(axis=1, keepdims=True)).astype(np.float32)
    return ValidationPredictions(
        index=np.arange(_VALIDATION_IMAGES),
        labels=labels.astype(np.int64),
        clean=clean,
        shifted_labels=labels[:_SHIFTED_IMAGES].astype(np.int64),
        shifted_groups=np.array(["stain"] * _SHIFTED_IMAGES),
        shifted_families=np.array(["stain_hue"] * _SHIFTED_IMAGES),
        shifted_severities=np.full(_SHIFTED_IMAGES, 3),
        shifted_weights=np.ones(_SHIFTED_IMAGES),
        shifted=clean[:_SHIFTED_IMAGES],
        target=clean[:0],
    )


def make_scores(*, accuracy: float, shift: float, ece: float = 0.014, ece_shifted: float = 0.052) -> ValidationScores:
    """Scores with plausible values for all that is not given."""
    return ValidationScores(
        accuracy=accuracy,
        balanced_accuracy=accuracy - 0.006,
        macro_f1=accuracy - 0.007,
        loss=0.11,
        shift=shift,
        shifted_accuracy=shift - 0.01,
        ece=ece,
        ece_shifted=ece_shifted,
    )


def make_epoch(epoch: int, *, objective: float = 0.8, accuracy: float = 0.9, stage: int = 0) -> EpochReport:
    """A report with plausible values for all that is not given."""
    return EpochReport(
        epoch=epoch,
        stage=stage,
        seconds=_EPOCH_SECONDS,
        evaluation_seconds=1.5,
        train_loss=1.2 / epoch,
        train_accuracy=min(accuracy + 0.02, 1.0),
        learning_rate=1e-3,
        loss=1.3 / epoch,
        accuracy=accuracy,
        balanced_accuracy=max(accuracy - 0.01, 0.0),
        macro_f1=max(accuracy - 0.012, 0.0),
        shift=max(objective - 0.03, 0.0),
        objective=objective,
        data_wait_fraction=0.08,
        stage_progress=min(epoch / EPOCHS, 1.0),
    )


def make_result(
    predictions: ValidationPredictions, *, shift: float, epochs: int, finished: bool = True
) -> TrainingResult:
    """The result of a training with these predictions."""
    return TrainingResult(
        finished=finished,
        objective=shift,
        metrics=compute_metrics(predictions.labels, predictions.clean),
        shift=shift,
        latency_ms=1.25,
        target_estimate=None,
        epochs=epochs,
        parameters=_PARAMETERS,
        seconds=_EPOCH_SECONDS * epochs,
        averaged_epochs=None,
        data_wait_fraction=0.08,
        validation=validation_figures(predictions.labels, predictions.clean),
    )


def make_selective(rng: np.random.Generator, images: int, *, coverage: float, accuracy: float) -> SelectiveAccuracy:
    """A risk-coverage curve with a threshold on it."""
    fractions = np.linspace(0.025, 1, 40)
    risk = np.sort(rng.uniform(0, 2 * (1 - accuracy), 40))
    curve = RiskCoverage(coverage=tuple(fractions.tolist()), risk=tuple(risk.tolist()), aurc=float(risk.mean()))
    return SelectiveAccuracy(images=images, coverage=coverage, accuracy=accuracy, curve=curve)


class _Factory:
    """Writes the files of one run and keeps its ledger."""

    def __init__(self, run: RunDirectory, classes: tuple[str, ...]) -> None:
        self.run, self.classes = run, classes
        self.rng = np.random.default_rng(5)
        self.spent_device_seconds = 0.0

    def charge(self, phase: str, device_seconds: float) -> None:
        self.spent_device_seconds += device_seconds
        self.run.ledger.append(
            LedgerCharge(
                at_unix=1.7e9 + self.spent_device_seconds,
                phase=phase,
                device_seconds=device_seconds,
                spent_device_seconds=self.spent_device_seconds,
            )
        )

    def write_data(self) -> None:
        images = self.rng.integers(80, 330, len(self.classes)).tolist()
        self.run.fingerprint.write(
            Fingerprint(
                source="cells.npz",
                images=sum(images),
                height_px=96,
                width_px=96,
                classes=dict(zip(self.classes, images, strict=True)),
                sites={"barcelona": sum(images)},
                excluded=7,
                digest=_DIGEST,
            )
        )
        findings = {3: ("exact_duplicate", "excluded"), 11: ("near_duplicate", "keep"), 40: ("blank", "keep")}
        rows = []
        for index in range(120):
            finding, action = findings.get(index % 60, ("none", "keep"))
            rows.append(
                CleaningRow(
                    name=f"img/{index:04d}.png",
                    label=self.classes[index % len(self.classes)],
                    finding=finding,
                    action=action,
                    cluster=index % 9,
                    reason="" if finding == "none" else f"found {finding}",
                )
            )
        self.run.cleaning.write(CleaningReport(rows=tuple(rows)))
        self.run.data_pictures.write(make_data_pictures(self.classes))
        parts = {-1: ("excluded", 7), -2: ("test", 15), 0: ("fold_0", 15), 1: ("fold_1", 40), 2: ("fold_2", 43)}
        self.run.splits.write(
            SplitsFile(
                dataset_sha256=_DIGEST,
                seed=7,
                num_folds=3,
                notes=("the test part shows no image of ig: nothing can be said of them there",),
                parts=tuple(
                    SplitPart(part=part, name=name, images=tuple(f"img/{part}-{index}.png" for index in range(size)))
                    for part, (name, size) in parts.items()
                ),
            )
        )

    def write_trials(self, trials: int) -> None:
        study = optuna.create_study(
            storage=sqlite_url(self.run.study),
            study_name=self.run.study_name(None),
            direction="maximize",
            sampler=optuna.samplers.RandomSampler(seed=3),
        )
        study.set_metric_names(["shift"])
        self.charge("start-up", 95.0)
        for plan in _plans(trials):
            self._write_trial(study, study.ask(), plan)
        study.enqueue_trial({"backbone.name": "resnet18"})
        self.charge("idle", 40.0)

    def _write_trial(self, study: optuna.Study, trial: optuna.trial.Trial, plan: TrialPlan) -> None:
        quality = suggest_parameters(trial) + 0.01 * float(self.rng.standard_normal())
        TrialAttributes(
            origin=initial_origin("small and strong") if trial.number < _INITIAL_TRIALS else SAMPLED,
            recipe_id=f"{trial.number * 7919 + 4096:012x}",
            backbone=trial.params["backbone.name"],
            started=True,
        ).write(trial)
        training, history = self.run.trial(trial.number), tuple(self._history(quality, plan.epochs))
        for report in history:
            trial.report(report.objective, report.epoch)
        if history:
            training.history.write(TrainingHistory(epochs=history))
        if plan.outcome is None:
            return
        device_seconds = 20.0 + _EPOCH_SECONDS * plan.epochs
        message = f"the training ended: {plan.reason}" if plan.outcome == "failed" else ""
        TrialAttributes(outcome=plan.outcome, reason=plan.reason, device_seconds=device_seconds, message=message).write(
            trial
        )
        if plan.outcome == "complete":
            self._write_predictions(training, history[-1])
            study.tell(trial, history[-1].objective)
        else:
            is_failed = plan.outcome == "failed"
            study.tell(trial, state=optuna.trial.TrialState.FAIL if is_failed else optuna.trial.TrialState.PRUNED)
        self.charge(f"trial {trial.number}", device_seconds)

    def _history(self, quality: float, epochs: int) -> Iterator[EpochReport]:
        for epoch in range(1, epochs + 1):
            noise = 0.008 * self.rng.standard_normal()
            objective = float(np.clip(quality * (1 - math.exp(-epoch / 2.2)) + noise, 0, 1))
            accuracy = min(objective + 0.09 + 0.02 * float(self.rng.random()), 0.995)
            yield make_epoch(epoch, objective=objective, accuracy=accuracy, stage=int(epoch > _INITIAL_TRIALS))

    def _write_predictions(self, training: TrainingDirectory, last: EpochReport) -> None:
        predictions = make_predictions(self.rng, len(self.classes), last.accuracy)
        training.predictions.write(predictions)
        training.result.write(make_result(predictions, shift=last.objective, epochs=last.epoch))

    def write_results(self) -> None:
        for phase, seconds in (
            (f"refit {REFITS[0]}", 520.0),
            (f"refit {REFITS[1]}", 610.0),
            ("ensemble", 45.0),
            ("export", 60.0),
        ):
            self.charge(phase, seconds)
        for name in REFITS:
            predictions = make_predictions(self.rng, len(self.classes), 0.96)
            self.run.refit(name).predictions.write(predictions)
            self.run.refit(name).result.write(make_result(predictions, shift=0.85, epochs=2 * EPOCHS))
        ensemble = self._ensemble()
        self.run.ensemble.write(ensemble)
        test = self._held_out_test(ensemble)
        self.run.held_out_test.write(test)
        self.run.result_pictures.write(make_result_pictures(ensemble, test))
        write_text(
            self.run.next_steps,
            "bloodauto export-best --run runs/blood --output best\nbloodauto dashboard --run runs/blood\n",
        )

    def _member(self, name: str, kind: NetworkKind, weight: float) -> EnsembleMember:
        trial = int(name.split("-", maxsplit=1)[0])
        folder = self.run.trial(trial).root if kind == "trial" else self.run.refit(name).root
        return EnsembleMember(
            name=name,
            kind=kind,
            trial=trial,
            weight=weight,
            parameters=_PARAMETERS,
            recipe_id=f"{trial:012x}",
            scores=make_scores(accuracy=0.964, shift=0.856, ece=0.031, ece_shifted=0.088),
            networks=(TrainedNetwork(name=name, kind=kind, trial=trial, fold=0, folder=folder),),
        )

    def _ensemble(self) -> Ensemble:
        predictions = make_predictions(self.rng, len(self.classes), 0.972)
        figures = validation_figures(predictions.labels, predictions.clean)
        members = (
            self._member(REFITS[0], "refit", 0.5),
            self._member(REFITS[1], "refit", 0.3),
            self._member("00000", "trial", 0.2),
        )
        return Ensemble(
            metric="shift",
            members=members,
            calibration=Calibration(temperature=1.31, per_class=None, cross_validated_nats=(0.211, 0.214)),
            abstention=Abstention(
                rule=AbstentionRule(confidence_score="entropy", threshold=-0.62),
                clean=make_selective(self.rng, _VALIDATION_IMAGES, coverage=0.95, accuracy=0.99),
                shifted=make_selective(self.rng, _SHIFTED_IMAGES, coverage=0.71, accuracy=0.93),
            ),
            scores=make_scores(accuracy=0.972, shift=0.881, ece=figures.ece),
            best_single=BestSingle(name=REFITS[0], scores=members[0].scores),
            trace=tuple(
                SelectionStep(step=step, added=name, score=0.95 + 0.01 * step) for step, name in enumerate(REFITS, 1)
            ),
            images=_VALIDATION_IMAGES,
            shifted_images=_SHIFTED_IMAGES,
            selection_bias=SelectionBias(
                trials=14, best=0.894, shrunk=0.883, noise=0.011, noise_degrees_of_freedom=3, refits=0.901
            ),
            objective_agreement=ObjectiveAgreement(trials=14, spearman=0.62),
            candidate_counts=CandidateCounts(trials=8, refits=2, pruned=11, promising=4, evaluated=3),
            validation=figures,
        )

    def _held_out_test(self, ensemble: Ensemble) -> HeldOutTest:
        size = len(self.classes)
        confusion = np.diag(self.rng.integers(60, 120, size)) + self.rng.poisson(0.5, (size, size))
        return HeldOutTest(
            ensemble=ensemble.ensemble_id,
            images=int(confusion.sum()),
            accuracy=float(np.trace(confusion) / confusion.sum()),
            accuracy_low=0.951,
            accuracy_high=0.974,
            balanced_accuracy=0.961,
            macro_f1=0.96,
            loss=0.13,
            ece=0.017,
            ece_shifted=0.061,
            confusion=tuple(tuple(row) for row in confusion.tolist()),
            classes=self.classes,
            shift={
                "optics": 0.843,
                "sensor": 0.912,
                "light": 0.934,
                "stain": 0.801,
                "artefacts": 0.897,
                "geometry": 0.951,
                "combined": 0.683,
            },
            shifted_accuracy=0.87,
            shifted_images=1600,
            external=ExternalEstimate(
                mean=0.76,
                low=0.41,
                high=0.95,
                nominal_coverage=0.9,
                measured_coverage=0.91,
                simulated_sites=40,
                shift_factors=6,
            ),
            simulated_sites=tuple(self._simulated_site(number) for number in range(40)),
        )

    def _simulated_site(self, number: int) -> SimulatedSiteResult:
        families = ("scale", "eosin_intensity", "stain_hue", "bubble", "gamma", "saturation", "defocus", "jpeg")
        severity, factors = float(self.rng.uniform(1, 5)), 1 + number % len(families)
        correct = int(self.rng.binomial(32, max(0.97 - 0.02 * severity * factors, 0.2)))
        return SimulatedSiteResult(
            families=families[:factors], groups=(), severity=severity, correct=correct, images=32
        )
