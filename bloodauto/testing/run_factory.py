"""A realistic run directory, made with a real Optuna study in SQLite: the report's only test double for a search."""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import optuna

from bloodauto.config.settings import SearchSettings, write_settings
from bloodauto.run.artifacts import LedgerCharge
from bloodauto.run.directory import RunDirectory
from bloodauto.run.files import write_arrays, write_json, write_text

CLASSES = ("basophil", "eosinophil", "erythroblast", "ig", "lymphocyte", "monocyte", "neutrophil", "platelet")
RUNGS = (2, 6)
REFITS = ("00002-fold0-seed8", "00007-fold0-seed9")
EPOCHS = 12


@dataclass(frozen=True)
class Plan:
    """What becomes of a trial."""

    outcome: str
    reason: str
    epochs: int


def _plans(trials: int) -> list[Plan]:
    """Every outcome, most of them complete or pruned, as in a search under way."""
    kinds = [
        Plan("complete", "", EPOCHS),
        Plan("pruned", f"rung_{RUNGS[0]}", RUNGS[0]),
        Plan("complete", "", EPOCHS),
        Plan("pruned", f"rung_{RUNGS[1]}", RUNGS[1]),
        Plan("complete", "", 9),
    ]
    plans = [kinds[index % len(kinds)] for index in range(trials)]
    plans[4 % trials] = Plan("failed", "nan", 1)
    plans[9 % trials] = Plan("failed", "out_of_memory", 0)
    plans[-3] = Plan("out_of_budget", "epoch 3 of 12", 3)
    plans[-2] = Plan("running", "", 2)
    plans[-1] = Plan("waiting", "", 0)
    return plans


def suggest(trial: optuna.trial.Trial) -> float:
    """Samples a conditional recipe; returns how good it is in the end, in [0, 1]."""
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


def build_run(
    root: Path, *, trials: int = 30, finished: bool = True, classes: tuple[str, ...] = CLASSES
) -> RunDirectory:
    """A run of ``trials`` trials of all outcomes; ``finished`` adds ensemble, held-out test and the next steps."""
    run, rng = RunDirectory(root), np.random.default_rng(5)
    root.mkdir(parents=True, exist_ok=True)
    _write_data(run, rng, classes)
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        spent = _write_trials(run, rng, trials, len(classes))
    finally:
        optuna.logging.set_verbosity(verbosity)
    settings = SearchSettings(
        data="cells.npz", space="blood", budget="2gpu-h", seed=7, workers=2, cpus_per_trial=4, gpus_per_trial=0.5
    )
    write_settings(run, settings)
    if finished:
        _write_ending(run, rng, classes, spent)
    return run


def _write_data(run: RunDirectory, rng: np.random.Generator, classes: tuple[str, ...]) -> None:
    counts = {name: int(count) for name, count in zip(classes, rng.integers(80, 330, len(classes)), strict=True)}
    write_json(
        run.fingerprint.path,
        {
            "source": "cells.npz",
            "images": sum(counts.values()),
            "height_px": 96,
            "width_px": 96,
            "classes": counts,
            "sites": {"barcelona": sum(counts.values())},
            "excluded": 7,
            "digest": "5f" * 32,
        },
    )
    findings = {3: ("exact_duplicate", "excluded"), 11: ("near_duplicate", "grouped"), 40: ("blurred", "kept")}
    with run.cleaning.path.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(("name", "label", "finding", "action", "cluster", "reason"))
        for index in range(120):
            finding, action = findings.get(index % 60, ("none", "keep"))
            writer.writerow(
                (f"img/{index:04d}.png", classes[index % len(classes)], finding, action, index % 9, finding)
            )
    sizes = {-1: ("excluded", 7), -2: ("test", 15), 0: ("fold_0", 15), 1: ("fold_1", 40), 2: ("fold_2", 43)}
    parts = [
        {"part": part, "name": name, "images": [f"img/{part}-{index}.png" for index in range(size)]}
        for part, (name, size) in sizes.items()
    ]
    notes = ["the test part has no image of ig: it cannot evaluate them"]
    write_json(
        run.splits.path,
        {"version": 1, "dataset_sha256": "5f" * 32, "seed": 7, "num_folds": 3, "notes": notes, "parts": parts},
    )


def _write_trials(run: RunDirectory, rng: np.random.Generator, trials: int, num_classes: int) -> float:
    study = optuna.create_study(
        storage=f"sqlite:///{run.study}",
        study_name="bloodauto",
        direction="maximize",
        sampler=optuna.samplers.RandomSampler(seed=3),
    )
    spent = _charge(run, "start-up", 95.0, 0.0)
    for plan in _plans(trials):
        if plan.outcome == "waiting":
            study.enqueue_trial({"backbone.name": "resnet18"})
            continue
        trial = study.ask()
        spent = _write_trial(run, rng, study, trial, plan, num_classes, spent)
    return _charge(run, "idle", 40.0, spent)


def _write_trial(
    run: RunDirectory,
    rng: np.random.Generator,
    study: optuna.Study,
    trial: optuna.trial.Trial,
    plan: Plan,
    num_classes: int,
    spent: float,
) -> float:
    quality = suggest(trial) + 0.01 * rng.standard_normal()
    seconds = 20.0 + 16.0 * plan.epochs
    trial.set_user_attr("origin", "initial: small and strong" if trial.number < 3 else "sampled")
    trial.set_user_attr("recipe_id", f"{trial.number * 7919 + 4096:012x}")
    trial.set_user_attr("backbone", trial.params["backbone.name"])
    history = []
    for epoch in range(1, plan.epochs + 1):
        objective = float(np.clip(quality * (1 - math.exp(-epoch / 2.2)) + 0.008 * rng.standard_normal(), 0, 1))
        accuracy = min(objective + 0.09 + 0.02 * rng.random(), 0.995)
        trial.report(objective, epoch)
        history.append(
            {
                "epoch": epoch,
                "stage": 0 if epoch <= 3 else 1,
                "seconds": 16.0,
                "evaluation_seconds": 1.5,
                "train_loss": 1.2 / epoch,
                "train_accuracy": min(accuracy + 0.02, 1.0),
                "learning_rate": 1e-3,
                "loss": 1.3 / epoch,
                "accuracy": accuracy,
                "balanced_accuracy": accuracy - 0.01,
                "macro_f1": accuracy - 0.012,
                "shift": objective - 0.03,
                "objective": objective,
                "data_wait_fraction": 0.08,
            }
        )
    folder = run.trial(trial.number).root
    if history:
        write_json(folder / "history.json", {"format_version": 1, "epochs": history})
    if plan.outcome == "running":
        return spent
    trial.set_user_attr("outcome", plan.outcome)
    trial.set_user_attr("reason", plan.reason)
    trial.set_user_attr("device_seconds", seconds)
    last = history[-1] if history else {}
    write_json(
        folder / "result.json",
        {
            "finished": plan.outcome == "complete",
            "objective": last.get("objective", 0.0),
            "metrics": {
                k: last[k] for k in ("loss", "accuracy", "balanced_accuracy", "macro_f1", "shift") if k in last
            },
            "parameters": 5_930_000 + 1000 * trial.number,
            "seconds": seconds - 1.0,
        },
    )
    if plan.outcome == "complete":
        study.tell(trial, last["objective"])
        write_arrays(folder / "predictions.npz", **predictions(rng, num_classes, last["accuracy"]))
    elif plan.outcome == "failed":
        trial.set_user_attr("message", f"the training ended: {plan.reason}")
        study.tell(trial, state=optuna.trial.TrialState.FAIL)
    else:
        study.tell(trial, state=optuna.trial.TrialState.PRUNED)
    return _charge(run, f"trial {trial.number}", seconds, spent)


def predictions(rng: np.random.Generator, num_classes: int, accuracy: float) -> dict[str, np.ndarray]:
    """What a training leaves for 400 images, the same for all: right about as often as ``accuracy``, too confident."""
    labels = np.random.default_rng(11).integers(0, num_classes, 400)
    logits = 0.6 * rng.standard_normal((400, num_classes))
    guessed = np.where(rng.random(400) < accuracy, labels, (labels + 1) % num_classes)
    logits[np.arange(400), guessed] += rng.uniform(2.0, 7.0, 400)
    exponent = np.exp(logits - logits.max(axis=1, keepdims=True))
    clean = (exponent / exponent.sum(axis=1, keepdims=True)).astype(np.float32)
    return {
        "index": np.arange(400),
        "labels": labels.astype(np.int64),
        "clean": clean,
        "shifted_labels": labels[:40].astype(np.int64),
        "shifted_groups": np.array(["stain"] * 40),
        "shifted_weights": np.ones(40),
        "shifted": clean[:40],
        "target": clean[:0],
    }


def _charge(run: RunDirectory, phase: str, seconds: float, spent: float) -> float:
    run.ledger.append(
        LedgerCharge(at_unix=1.7e9 + spent, phase=phase, device_seconds=seconds, spent_device_seconds=spent + seconds)
    )
    return spent + seconds


def _answered_part(rng: np.random.Generator, images: int, coverage: float, accuracy: float) -> dict[str, object]:
    shares = np.linspace(0.025, 1, 40)
    wrong = np.sort(rng.uniform(0, 2 * (1 - accuracy), 40))
    curve = {"coverage": shares.tolist(), "risk": wrong.tolist(), "aurc": float(wrong.mean())}
    return {"images": images, "coverage": coverage, "accuracy": accuracy, "curve": curve}


def _simulated_sites(rng: np.random.Generator) -> list[dict[str, object]]:
    families = ("scale", "eosin_intensity", "stain_hue", "bubble", "gamma", "saturation", "defocus", "jpeg")
    found = []
    for number in range(40):
        severity, shift_factors = float(rng.uniform(1, 5)), 1 + number % 8
        correct = int(rng.binomial(32, max(0.97 - 0.02 * severity * shift_factors, 0.2)))
        found.append(
            {"families": families[:shift_factors], "groups": [], "severity": severity, "correct": correct, "images": 32}
        )
    return found


def _write_ending(run: RunDirectory, rng: np.random.Generator, classes: tuple[str, ...], spent: float) -> None:
    for phase, seconds in (
        (f"refit {REFITS[0]}", 520.0),
        (f"refit {REFITS[1]}", 610.0),
        ("ensemble", 45.0),
        ("export", 60.0),
    ):
        spent = _charge(run, phase, seconds, spent)
    scores = {"accuracy": 0.972, "balanced_accuracy": 0.966, "macro_f1": 0.965, "shift": 0.881, "ece": 0.014}
    single = {"accuracy": 0.964, "balanced_accuracy": 0.957, "macro_f1": 0.955, "shift": 0.856, "ece": 0.031}
    scores["ece_shifted"], single["ece_shifted"] = 0.052, 0.088
    for name in REFITS:
        write_arrays(run.refit(name).root / "predictions.npz", **predictions(rng, len(classes), 0.96))
        write_json(run.refit(name).root / "result.json", {"finished": True, "objective": 0.85, "parameters": 5_930_000})
    members = [
        {"name": name, "weight": weight, "recipe_id": f"{trial:012x}", "trial": trial, "kind": kind,
         "parameters": 5_930_000, "scores": single, "latency_ms": None,
         "networks": [{"name": name, "fold": 0, "folder": f"{kind}s/{name}"}]}
        for name, weight, trial, kind in (
            (REFITS[0], 0.5, 2, "refit"), (REFITS[1], 0.3, 7, "refit"), ("00000", 0.2, 0, "trial")
        )
    ]  # fmt: skip
    write_json(
        run.ensemble.path,
        {
            "metric": "shift",
            "members": members,
            "calibration": {"temperature": 1.31, "per_class": None, "cross_validated_nats": [0.211, 0.214]},
            "abstention": {
                "confidence_score": "entropy",
                "threshold": -0.62,
                "clean": _answered_part(rng, 400, 0.95, 0.99),
                "shifted": _answered_part(rng, 40, 0.71, 0.93),
            },
            "winners_curse": {
                "trials": 14,
                "best": 0.894,
                "shrunk": 0.883,
                "noise": 0.011,
                "noise_degrees_of_freedom": 3,
                "refits": 0.901,
            },
            "scores": scores,
            "best_single": {"name": REFITS[0], "scores": single},
            "trace": [
                {"step": step, "added": name, "score": 0.95 + 0.01 * step} for step, name in enumerate(REFITS, 1)
            ],
            "images": 400,
            "shifted_images": 40,
        },
    )
    size = len(classes)
    confusion = np.diag(rng.integers(60, 120, size)) + rng.poisson(0.5, (size, size))
    write_json(
        run.held_out_test.path,
        {
            "images": int(confusion.sum()),
            "accuracy": float(np.trace(confusion) / confusion.sum()),
            "accuracy_low": 0.951,
            "accuracy_high": 0.974,
            "balanced_accuracy": 0.961,
            "macro_f1": 0.96,
            "loss": 0.13,
            "ece": 0.017,
            "ece_shifted": 0.061,
            "ensemble": "0123456789ab",
            "external": {
                "mean": 0.76,
                "low": 0.41,
                "high": 0.95,
                "nominal_coverage": 0.9,
                "measured_coverage": 0.91,
                "simulated_sites": 40,
                "shift_factors": 6,
            },
            "simulated_sites": _simulated_sites(rng),
            "confusion": confusion.tolist(),
            "classes": list(classes),
            "shift": {
                "optics": 0.843,
                "sensor": 0.912,
                "light": 0.934,
                "stain": 0.801,
                "artefacts": 0.897,
                "geometry": 0.951,
                "combined": 0.683,
            },
            "shifted_accuracy": 0.87,
            "shifted_images": 1600,
        },
    )
    write_text(
        run.next_steps, "bloodauto export-best --run runs/blood --output best\nbloodauto dashboard --run runs/blood\n"
    )
