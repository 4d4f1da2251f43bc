"""Untrusted plain values of ``site_scores.json``, ``target.json`` and ``pareto_front.json`` -> frozen values, and their tables."""

from __future__ import annotations

from typing import Any

from bloodauto.report.info_sites import ParetoTrial, SiteScores, TargetInfo
from bloodauto.report.labels import percent
from bloodauto.report.markup import Markup, join, table, tag
from bloodauto.report.parse import integer, items, mapping, number, text

_PARETO_HINT = "The trials that no other dominates, the best in the leading one first; the ensemble is made of these."
_SITES_HINT = "The ensemble's out-of-fold predictions, by networks that saw no image of the laboratory."


def sites(value: Any) -> tuple[SiteScores, ...]:
    found = []
    for index, entry in enumerate(items(value, "sites")):
        fields = mapping(entry, f"labs.{index}")
        found.append(
            SiteScores(
                site=text(fields.get("site")),
                images=integer(fields.get("images"), f"labs.{index}.images"),
                accuracy=number(fields.get("accuracy"), f"labs.{index}.accuracy"),
                balanced_accuracy=number(fields.get("balanced_accuracy"), f"labs.{index}.balanced_accuracy"),
            )
        )
    return tuple(found)


def target(value: Any) -> TargetInfo:
    fields = mapping(value, "target")
    return TargetInfo(
        images=integer(fields.get("images"), "target.images"),
        accuracy=number(fields.get("accuracy"), "target.accuracy"),
        confidence=number(fields.get("confidence"), "target.confidence"),
        agreement=number(fields.get("agreement"), "target.agreement"),
    )


def pareto_front(value: Any) -> tuple[ParetoTrial, ...]:
    found = []
    for index, entry in enumerate(items(mapping(value, "front").get("trials"), "front.trials")):
        place = f"front.trials.{index}"
        fields = mapping(entry, place)
        values = mapping(fields.get("values"), f"{place}.values")
        found.append(
            ParetoTrial(
                trial=integer(fields.get("trial"), f"{place}.trial"),
                backbone=text(fields.get("backbone")),
                values=tuple((text(name), number(one, f"{place}.values.{name}")) for name, one in values.items()),
            )
        )
    return tuple(found)


def _value(name: str, value: float | None) -> str:
    if value is None:
        return "–"
    if name == "latency":
        return f"{value:.2f} ms"
    return f"{value:,.0f}" if name == "parameters" else percent(value)


def pareto_table(trials: tuple[ParetoTrial, ...]) -> Markup | None:
    """The front; None with one objective."""
    if not trials:
        return None
    names = [name for name, _ in trials[0].values]
    rows = []
    for one in trials:
        values = dict(one.values)
        rows.append(
            ("–" if one.trial is None else str(one.trial), one.backbone, *(_value(n, values.get(n)) for n in names))
        )
    headings = ("trial", "backbone", *(name.replace("_", " ") for name in names))
    shown = table(headings, rows, numeric=range(2, len(headings)))
    return join([tag("h3", "The front"), tag("p", _PARETO_HINT, class_="hint"), shown])


def site_table(laboratories: tuple[SiteScores, ...]) -> Markup | None:
    """Scores in left-out laboratories; None where the data name none."""
    if not laboratories:
        return None
    rows = [
        (
            one.site,
            "–" if one.images is None else f"{one.images:,}",
            percent(one.accuracy),
            percent(one.balanced_accuracy),
        )
        for one in laboratories
    ]
    shown = table(("laboratory", "images", "accuracy", "balanced accuracy"), rows, numeric=range(1, 4))
    return join([tag("h3", "In laboratories left out"), tag("p", _SITES_HINT, class_="hint"), shown])


def target_text(found: TargetInfo | None) -> Markup | None:
    """What to expect where the target images come from; None where there were none."""
    if found is None:
        return None
    agreement = "" if found.agreement is None else f"; two of its networks agree on {percent(found.agreement)}"
    images = "unlabelled images" if found.images is None else f"{found.images} unlabelled images"
    words = (
        f"About {percent(found.accuracy)} right, as {images} let expect, if classes are as frequent there as in training. "
        f"Its mean confidence there is {percent(found.confidence)}{agreement}."
    )
    return join([tag("h3", "Where the target images come from"), tag("p", words)])
