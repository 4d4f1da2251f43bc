"""A run's ensemble as it is kept: its members, their weights, its calibration, and the file that holds them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bloodauto.ensemble.scoring import NO_SITE_INFO, SiteInfo
from bloodauto.ensemble.selection_bias import WinnersCurse
from bloodauto.errors import RunError
from bloodauto.evaluation.probability_scaling import Calibration, PerClass
from bloodauto.evaluation.selective import CONFIDENCE_SCORES, Abstention, RiskCoverage, SelectiveAccuracy
from bloodauto.run.directory import RunDirectory
from bloodauto.run.files import read_json, write_json


@dataclass(frozen=True)
class TrainedNetwork:
    """A training whose weights and predictions lie in the run.

    Attributes:
        name: unique in the run.
        kind: ``trial``, ``stopped trial`` (the weights it had when it was stopped), ``refit`` or ``distilled``.
        trial: the trial whose recipe it has.
        fold: the fold it was not trained on.
        folder: with ``recipe.yaml``, ``best.npz``, ``predictions.npz`` and ``result.json``.
    """

    name: str
    kind: str
    trial: int
    fold: int
    folder: Path


@dataclass(frozen=True)
class Member:
    """A member of the ensemble: one network, or one for each fold averaged evenly.

    Attributes:
        weight: its share of the averaged probabilities.
        scores: of it alone, on the images the ensemble was chosen by.
        latency_ms: what one image takes it; None where no cap asked for a measurement.
    """

    name: str
    kind: str
    trial: int
    weight: float
    parameters: int
    recipe_id: str
    scores: dict[str, float]
    networks: tuple[TrainedNetwork, ...]
    latency_ms: float | None = None


@dataclass(frozen=True)
class CandidateCounts:
    """How many trainings an ensemble was chosen from.

    Attributes:
        trials, refits: that completed and were good enough.
        stopped: trials that were stopped at a rung; promising: of these, as good as the best one there, or nearly;
            judged: of these, those the time was long enough for. All 0 where sets of folds were chosen among.
    """

    trials: int
    refits: int
    pruned: int
    promising: int
    evaluated: int


@dataclass(frozen=True)
class Ensemble:
    """The ensemble of a run. Its scores are those of the images it was chosen by: optimistic figures.

    Attributes:
        metric: what it was chosen by.
        calibration, abstention: fitted to the members' average, on clean images and shifted shifted_images.
        best_single: name and scores of the best candidate alone.
        trace: (step, who was added, score of the average) of the selection.
        images, shifted_images: how many it was chosen by.
        winners_curse: None where no recipe was trained twice.
        places: what it was chosen by beside the labels.
        considered: what it was chosen from; None where somebody else chose.
    """

    metric: str
    members: tuple[Member, ...]
    calibration: Calibration
    abstention: Abstention
    scores: dict[str, float]
    best_single: tuple[str, dict[str, float]]
    trace: tuple[tuple[int, str, float], ...]
    images: int
    shifted_images: int
    winners_curse: WinnersCurse | None = None
    site_info: SiteInfo = NO_SITE_INFO
    candidate_counts: CandidateCounts | None = None

    @property
    def ensemble_id(self) -> str:
        """Tells apart what answers differently: members, weights and calibration; twelve hexadecimal digits."""
        said = [[one.name, one.weight] for one in self.members], asdict(self.calibration)
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:12]


def write_ensemble(run: RunDirectory, ensemble: Ensemble) -> None:
    """Writes ``ensemble.json``."""
    members = [
        {
            "name": member.name,
            "kind": member.kind,
            "trial": member.trial,
            "weight": member.weight,
            "parameters": member.parameters,
            "recipe_id": member.recipe_id,
            "scores": member.scores,
            "latency_ms": member.latency_ms,
            "networks": [
                {"name": one.name, "fold": one.fold, "folder": str(one.folder.relative_to(run.root))}
                for one in member.networks
            ],
        }
        for member in ensemble.members
    ]
    name, scores = ensemble.best_single
    write_json(
        run.ensemble.path,
        {
            "metric": ensemble.metric,
            "members": members,
            "calibration": asdict(ensemble.calibration),
            "abstention": asdict(ensemble.abstention),
            "scores": ensemble.scores,
            "best_single": {"name": name, "scores": scores},
            "trace": [{"step": step, "added": added, "score": score} for step, added, score in ensemble.trace],
            "images": ensemble.images,
            "shifted_images": ensemble.shifted_images,
            "winners_curse": None if ensemble.winners_curse is None else asdict(ensemble.winners_curse),
            "site_info": asdict(ensemble.site_info),
            "candidate_counts": None if ensemble.candidate_counts is None else asdict(ensemble.candidate_counts),
        },
    )


def read_ensemble(run: RunDirectory) -> Ensemble:
    """Reads ``ensemble.json``.

    Raises:
        RunError: the search has not come that far, or the file is not one of ours.
    """
    if not run.ensemble.path.is_file():
        raise RunError(
            f"{run.root}: expected an ensemble (ensemble.json), found none: the search has not come that far. "
            f"Go on with: bloodauto search --resume --run {run.root}"
        )
    value: dict[str, Any] = read_json(run.ensemble.path)
    try:
        members = tuple(_member(run, one) for one in value["members"])
        if not members:
            raise ValueError("no members")
        curse, candidate_counts, site_info = (
            value["winners_curse"],
            value.get("candidate_counts"),
            value.get("site_info"),
        )
        return Ensemble(
            metric=value["metric"],
            members=members,
            calibration=_calibration(value["calibration"]),
            abstention=_abstention(value["abstention"]),
            scores=value["scores"],
            best_single=(value["best_single"]["name"], value["best_single"]["scores"]),
            trace=tuple((one["step"], one["added"], one["score"]) for one in value["trace"]),
            images=int(value["images"]),
            shifted_images=int(value["shifted_images"]),
            winners_curse=None if curse is None else WinnersCurse(**curse),
            site_info=NO_SITE_INFO if site_info is None else _site_info(site_info),
            candidate_counts=None if candidate_counts is None else CandidateCounts(**candidate_counts),
        )
    except (KeyError, TypeError, ValueError, AssertionError) as error:
        raise RunError(
            f"{run.ensemble.path}: expected an ensemble, something is missing or wrong ({error!r})."
        ) from None


def _member(run: RunDirectory, value: dict[str, Any]) -> Member:
    networks = tuple(
        TrainedNetwork(one["name"], value["kind"], int(value["trial"]), int(one["fold"]), run.root / one["folder"])
        for one in value["networks"]
    )
    known = {name: value[name] for name in ("name", "kind", "trial", "weight", "parameters", "recipe_id", "scores")}
    return Member(**known, networks=networks, latency_ms=value["latency_ms"])


def _site_info(value: dict[str, Any]) -> SiteInfo:
    shares = value["class_fractions"]
    return SiteInfo(bool(value["folds_are_sites"]), None if shares is None else tuple(float(share) for share in shares))


def _calibration(value: dict[str, Any]) -> Calibration:
    temperature, per_class, nats = float(value["temperature"]), value["per_class"], value["cross_validated_nats"]
    if not temperature > 0:
        raise ValueError(f"temperature {temperature}")
    scaled = None if per_class is None else PerClass(tuple(per_class["scales"]), tuple(per_class["biases"]))
    return Calibration(temperature, scaled, None if nats is None else (float(nats[0]), float(nats[1])))


def _abstention(value: dict[str, Any]) -> Abstention:
    if value["confidence_score"] not in CONFIDENCE_SCORES:
        raise ValueError(f"sureness {value['sureness']!r}")
    shifted = None if value["shifted"] is None else _selective_accuracy(value["shifted"])
    return Abstention(
        value["confidence_score"], float(value["threshold"]), _selective_accuracy(value["clean"]), shifted
    )


def _selective_accuracy(value: dict[str, Any]) -> SelectiveAccuracy:
    curve = value["curve"]
    known = RiskCoverage(tuple(curve["coverage"]), tuple(curve["risk"]), float(curve["aurc"]))
    return SelectiveAccuracy(int(value["images"]), float(value["coverage"]), value["accuracy"], known)
