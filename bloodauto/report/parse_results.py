"""Untrusted values of ``ensemble.json``, ``test.json``, ``ood.json`` -> the frozen values of ``info``; see ``parse``."""

from __future__ import annotations

from dataclasses import fields as fields_of
from typing import Any, TypeVar

from bloodauto.report.info import (
    AbstentionInfo,
    CandidateCounts,
    EnsembleRecord,
    ExternalEstimateInfo,
    MemberInfo,
    OodInfo,
    SelectionBiasInfo,
    SelectionStep,
    SelectiveResult,
    SimulatedSiteResult,
    TestResult,
)
from bloodauto.report.parse import integer, items, mapping, number, scores, text

Value = TypeVar("Value")


def ensemble(value: Any) -> EnsembleRecord:
    fields = mapping(value, "ensemble")
    members = []
    for index, entry in enumerate(items(fields.get("members"), "members")):
        member = mapping(entry, f"members.{index}")
        weight = number(member.get("weight"), f"members.{index}.weight")
        members.append(
            MemberInfo(
                name=text(member.get("name")),
                weight=0.0 if weight is None else weight,
                kind=text(member.get("kind")),
                trial=integer(member.get("trial"), f"members.{index}.trial"),
                recipe_id=text(member.get("recipe_id")),
                parameters=integer(member.get("parameters"), f"members.{index}.parameters"),
                scores=scores(member.get("scores"), f"members.{index}.scores"),
            )
        )
    single = mapping(fields.get("best_single") or {}, "best_single")
    trace = []
    for index, entry in enumerate(items(fields.get("trace") or [], "trace")):
        step = mapping(entry, f"trace.{index}")
        score = number(step.get("score"), f"trace.{index}.score")
        if score is not None:
            at = integer(step.get("step"), f"trace.{index}.step")
            trace.append(SelectionStep(index + 1 if at is None else at, text(step.get("added")), score))
    calibration = mapping(fields.get("calibration") or {}, "calibration")
    return EnsembleRecord(
        metric=text(fields.get("metric")),
        members=tuple(members),
        temperature=number(calibration.get("temperature"), "calibration.temperature"),
        per_class=calibration.get("per_class") is not None,
        abstention=_abstention(fields.get("abstention")),
        selection_bias=_numbers(
            SelectionBiasInfo, fields.get("winners_curse"), "winners_curse", optional_fields=("refits",)
        ),
        scores=scores(fields.get("scores"), "scores"),
        best_single=text(single.get("name")),
        best_single_scores=scores(single.get("scores"), "best_single.scores"),
        trace=tuple(trace),
        candidate_counts=_numbers(
            CandidateCounts, fields.get("candidate_counts"), "candidate_counts", optional_fields=()
        ),
    )


def test_result(value: Any) -> TestResult:
    fields = mapping(value, "test")
    classes = tuple(text(name) for name in items(fields.get("classes") or [], "classes"))
    confusion = tuple(
        tuple(int(number(count, "confusion") or 0) for count in items(row, f"confusion.{index}"))
        for index, row in enumerate(items(fields.get("confusion") or [], "confusion"))
    )
    if any(len(row) != len(confusion) for row in confusion):
        raise ValueError(f"confusion: expected a square, got rows of {sorted({len(row) for row in confusion})}")
    if confusion and classes and len(classes) != len(confusion):
        raise ValueError(f"classes: expected {len(confusion)} names, one a row of confusion, got {len(classes)}")
    plain = ("accuracy", "accuracy_low", "accuracy_high", "balanced_accuracy", "macro_f1", "ece", "ece_shifted")
    return TestResult(
        images=integer(fields.get("images"), "images"),
        **{key: number(fields.get(key), key) for key in plain},
        confusion=confusion,
        classes=classes,
        shift=scores(fields.get("shift"), "shift"),
        external=_numbers(
            ExternalEstimateInfo, fields.get("external"), "external", optional_fields=("measured_coverage",)
        ),
        simulated_sites=tuple(
            _simulated_site(entry, f"laboratories.{index}")
            for index, entry in enumerate(items(fields.get("simulated_sites") or [], "simulated_sites"))
        ),
    )


def _numbers(kind: type[Value], value: Any, where: str, *, optional_fields: tuple[str, ...]) -> Value | None:
    """A dataclass of numbers; ``None`` for ``None``. Only those that ``optional_fields`` may be ``None`` in it."""
    if value is None:
        return None
    entry = mapping(value, where)
    found = {one.name: number(entry.get(one.name), f"{where}.{one.name}") for one in fields_of(kind)}  # type: ignore[arg-type]
    for name, amount in found.items():
        if amount is None and name not in optional_fields:
            raise ValueError(f"{where}.{name}: expected a number")
    whole_numbers = (
        "trials",
        "noise_degrees_of_freedom",
        "simulated_sites",
        "shift_factors",
        "pruned",
        "promising",
        "evaluated",
    )
    return kind(**{name: int(amount) if name in whole_numbers else amount for name, amount in found.items()})  # type: ignore[arg-type]


def _simulated_site(value: Any, where: str) -> SimulatedSiteResult:
    entry = mapping(value, where)
    severity, correct, images = (
        number(entry.get(name), f"{where}.{name}") for name in ("severity", "correct", "images")
    )
    if severity is None or correct is None or not images:
        raise ValueError(f"{where}: expected severity, correct and images")
    families = tuple(text(name) for name in items(entry.get("families"), f"{where}.families"))
    return SimulatedSiteResult(families, severity, correct / images, int(images))


def _abstention(value: Any) -> AbstentionInfo | None:
    if value is None:
        return None
    entry = mapping(value, "abstention")
    threshold = number(entry.get("threshold"), "abstention.threshold")
    clean = _selective_result(entry.get("clean"), "abstention.clean")
    if threshold is None or clean is None:
        raise ValueError("abstention: expected a threshold and what it does to clean images")
    shifted = _selective_result(entry.get("shifted"), "abstention.shifted")
    return AbstentionInfo(text(entry.get("confidence_score")), threshold, clean, shifted)


def ood(value: Any) -> OodInfo:
    fields = mapping(value, "familiar")
    in_domain, external = (_selective_result(fields.get(name), name) for name in ("in_domain", "external"))
    if in_domain is None or external is None:
        raise ValueError("expected what the rule does to own images and elsewhere")
    synthetic_ood = [mapping(entry, "synthetic_ood") for entry in items(fields.get("synthetic_ood"), "synthetic_ood")]
    return OodInfo(
        in_domain,
        external,
        tuple((text(entry.get("kind")), number(entry.get("flagged"), "found.marked")) for entry in synthetic_ood),
    )


def _selective_result(value: Any, where: str) -> SelectiveResult | None:
    if value is None:
        return None
    entry = mapping(value, where)
    coverage = number(entry.get("coverage"), f"{where}.answered")
    curve = mapping(entry.get("curve") or {}, f"{where}.curve")
    points = zip(items(curve.get("coverage") or [], where), items(curve.get("risk") or [], where), strict=True)
    if coverage is None:
        raise ValueError(f"{where}.answered: expected a number")
    return SelectiveResult(
        images=integer(entry.get("images"), f"{where}.images"),
        coverage=coverage,
        accuracy=number(entry.get("accuracy"), f"{where}.accuracy"),
        curve=tuple((float(share), float(wrong)) for share, wrong in points),
    )
