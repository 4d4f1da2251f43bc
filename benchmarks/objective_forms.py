"""Candidates for the objective: from a recipe's accuracies, family by family, to one number."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np


@dataclass(frozen=True)
class Scores:
    """Accuracies of recipes on the families that an objective may use.

    Attributes:
        clean: balanced accuracy on unchanged images, float (recipes,).
        balanced: balanced accuracy, float (recipes, families, severities).
        groups: str (families,).
        weights: of each family and severity, float (families, severities) or, where recipes are scored
            differently, (recipes, families, severities).
        harsher: balanced accuracy under a combined shift harsher than the suite's, float (recipes, levels); None where the
            combined group may not be used.
        site_accuracy: accuracy at simulated sites, float (recipes, sites); None as ``harsher``.
    """

    clean: np.ndarray
    balanced: np.ndarray
    groups: np.ndarray
    weights: np.ndarray
    harsher: np.ndarray | None = None
    site_accuracy: np.ndarray | None = None

    @property
    def families(self) -> np.ndarray:
        """Weighted mean over the severities, float (recipes, families); families without weight are left out."""
        weights = np.broadcast_to(self.weights, self.balanced.shape)
        counted = weights.sum(axis=2).min(axis=0) > 0
        return np.average(self.balanced[:, counted], axis=2, weights=weights[:, counted])


#: (scores) -> float (recipes,), larger is better.
Form = Callable[[Scores], np.ndarray]


def _group_means(scores: Scores) -> tuple[np.ndarray, np.ndarray]:
    """Weighted mean and mean weight of each group: float (recipes, groups) each."""
    means, weights = [], []
    every = np.broadcast_to(scores.weights, scores.balanced.shape)
    for group in dict.fromkeys(scores.groups.tolist()):
        members = scores.groups == group
        part = every[:, members].reshape(len(every), -1)
        total = part.sum(axis=1)
        values = scores.balanced[:, members].reshape(len(every), -1)
        means.append((values * part).sum(axis=1) / np.where(total > 0, total, 1.0))
        weights.append(part.mean(axis=1))
    return np.stack(means, axis=1), np.stack(weights, axis=1)


def clean_alone(scores: Scores) -> np.ndarray:
    return scores.clean


def mean_of_groups(scores: Scores, clean_weight: float = 1.0) -> np.ndarray:
    """The groups by their weights, and the clean images as one more of ``clean_weight``."""
    means, weights = _group_means(scores)
    total = (means * weights).sum(axis=1) + clean_weight * scores.clean
    return np.asarray(total / (weights.sum(axis=1) + clean_weight))


def mean_of_families(scores: Scores) -> np.ndarray:
    return np.asarray(scores.families.mean(axis=1))


def quantile_of_families(scores: Scores, quantile: float) -> np.ndarray:
    return np.asarray(np.quantile(scores.families, quantile, axis=1))


def worst_family(scores: Scores) -> np.ndarray:
    return np.asarray(scores.families.min(axis=1))


def worst_group(scores: Scores) -> np.ndarray:
    return np.asarray(_group_means(scores)[0].min(axis=1))


def mean_and_worst(scores: Scores) -> np.ndarray:
    """Half the mean of groups, half the mean of the lower half of the families."""
    families = np.sort(scores.families, axis=1)
    return np.asarray((mean_of_groups(scores) + families[:, : max(families.shape[1] // 2, 1)].mean(axis=1)) / 2)


def by_severity(scores: Scores, weights: tuple[float, ...]) -> np.ndarray:
    return np.average(scores.balanced.mean(axis=1), axis=1, weights=np.array(weights[: scores.balanced.shape[2]]))


def high_severities(scores: Scores, form: Form, severities: slice = slice(2, None)) -> np.ndarray:
    """Another form, at the higher severities only."""
    weights = np.broadcast_to(scores.weights, scores.balanced.shape)
    return form(replace(scores, balanced=scores.balanced[:, :, severities], weights=weights[:, :, severities]))


def mean_and_worst_group(scores: Scores) -> np.ndarray:
    """Half the mean of the groups, half the worst group."""
    means = _group_means(scores)[0]
    return np.asarray((means.mean(axis=1) + means.min(axis=1)) / 2)


def mean_log_odds(scores: Scores) -> np.ndarray:
    """Mean log odds of the families: the difference of 0.98 and 0.99 counts as much as that of 0.5 and 0.67."""
    fractions = np.clip(scores.families, 0.005, 0.995)
    return np.asarray(np.log(fractions / (1 - fractions)).mean(axis=1))


COMBINED = "combined"


def combined_and_others(scores: Scores, combined_weight: float = 0.5) -> np.ndarray:
    """The combined shift by ``combined_weight``, the other groups and the clean images by the rest."""
    combined = scores.groups == COMBINED
    if not combined.any():
        return mean_of_groups(scores)
    weights = np.broadcast_to(scores.weights, scores.balanced.shape)
    apart = replace(
        scores, balanced=scores.balanced[:, ~combined], groups=scores.groups[~combined], weights=weights[:, ~combined]
    )
    others = mean_of_groups(apart) if (~combined).any() else scores.clean
    return np.asarray(combined_weight * scores.balanced[:, combined].mean(axis=(1, 2)) + (1 - combined_weight) * others)


def harsher_and_others(scores: Scores, levels: slice, weight: float = 0.5) -> np.ndarray:
    """A harsher combined shift by ``weight``; the other groups and the clean images by the rest."""
    others = combined_and_others(scores, 0.0)
    if scores.harsher is None:
        return others
    return np.asarray(weight * scores.harsher[:, levels].mean(axis=1) + (1 - weight) * others)


def sites_and_others(scores: Scores, quantile: float | None = None, weight: float = 0.5) -> np.ndarray:
    """Simulated sites, their mean or a quantile, by ``weight``; the other groups and the clean images by the rest."""
    others = combined_and_others(scores, 0.0)
    if scores.site_accuracy is None:
        return others
    site_accuracy = (
        scores.site_accuracy.mean(axis=1) if quantile is None else np.quantile(scores.site_accuracy, quantile, axis=1)
    )
    return np.asarray(weight * site_accuracy + (1 - weight) * others)


def _with_harsher(levels: slice, weight: float) -> Form:
    return partial(high_severities, form=partial(harsher_and_others, levels=levels, weight=weight))


def _with_combined(severities: slice, weight: float) -> Form:
    return partial(high_severities, form=partial(combined_and_others, combined_weight=weight), severities=severities)


FORMS: dict[str, Form] = {
    "clean accuracy (control)": clean_alone,
    "mean of groups and clean": mean_of_groups,
    "mean of groups": partial(mean_of_groups, clean_weight=0.0),
    "mean of families": mean_of_families,
    "lower quartile of families": partial(quantile_of_families, quantile=0.25),
    "lowest tenth of families": partial(quantile_of_families, quantile=0.1),
    "worst family": worst_family,
    "worst group": worst_group,
    "mean of groups and worst half": mean_and_worst,
    "severities 4 and 5": partial(by_severity, weights=(0, 0, 0, 1, 1)),
    "severities by their number": partial(by_severity, weights=(1, 2, 3, 4, 5)),
    "mild severities 1 and 2": partial(by_severity, weights=(1, 1, 0, 0, 0)),
    "mean log odds of families": mean_log_odds,
    "half combined shift, half the rest": combined_and_others,
    "a third combined shift, severities 3 to 5": _with_combined(slice(2, None), 1 / 3),
    "half combined shift, severities 3 to 5": _with_combined(slice(2, None), 0.5),
    "half combined shift, severities 4 and 5": _with_combined(slice(3, None), 0.5),
    "combined shift alone, severities 3 to 5": _with_combined(slice(2, None), 1.0),
    "combined shift alone, severities 4 and 5": _with_combined(slice(3, None), 1.0),
    "half harsher, 3.2 to 4.1": _with_harsher(slice(0, 3), 0.5),
    "half harsher, 3.7 to 4.6": _with_harsher(slice(1, 4), 0.5),
    "half harsher, 4.1 to 5": _with_harsher(slice(2, 5), 0.5),
    "a third harsher, 3.7 to 4.6": _with_harsher(slice(1, 4), 1 / 3),
    "two thirds harsher, 3.7 to 4.6": _with_harsher(slice(1, 4), 2 / 3),
    "harsher alone, 3.7 to 4.6": _with_harsher(slice(1, 4), 1.0),
    "half sites": partial(high_severities, form=sites_and_others),
    "half lower quartile of sites": partial(high_severities, form=partial(sites_and_others, quantile=0.25)),
    "mean of groups and worst group": mean_and_worst_group,
    "mean of groups, severities 3 to 5": partial(high_severities, form=partial(mean_of_groups, clean_weight=0.0)),
    "mean of groups and clean, severities 3 to 5": partial(high_severities, form=mean_of_groups),
    "worst group, severities 3 to 5": partial(high_severities, form=worst_group),
    "mean of groups and worst group, severities 3 to 5": partial(high_severities, form=mean_and_worst_group),
    "mean of groups and worst group, severities 4 and 5": partial(
        high_severities, form=mean_and_worst_group, severities=slice(3, None)
    ),
}

#: What a search maximises, before images that training may cover are discounted.
DEFAULT = FORMS["half combined shift, severities 3 to 5"]
