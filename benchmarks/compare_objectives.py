"""Which score ranks recipes as images rank them that no score has used?

    python benchmarks/compare_objectives.py benchmarks/objective_recipes.json

Reads what ``record_objective.py`` recorded and ranks the candidates of ``objective_forms.py`` by rank correlations over the
recipes:

- *held-out groups*: one group of families is excluded in turn; the candidate is computed without it and correlated with the
  balanced accuracy on it; mean over the groups.
- *held-out half*: half of the families of every group are excluded; the candidate is computed without them and correlated with
  the balanced accuracy on all of them at severities 3 to 5; mean over draws. The combined group is never excluded, and it
  contains some of each family.
- *external sites*: the candidate on all families, correlated with the accuracy on each recorded external data set.

Then the value of the choice: of a few recipes drawn from the table, as a search has them, the best by clean accuracy and
the best by the default objective are compared at the external sites, and on each group with an objective that does not use
it.

Intervals are 90 % bootstrap intervals over the recipes. Candidates with "covered images weigh w" weigh shifted images less that
any recipe of the table may train on, as a search does.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from objective_forms import COMBINED, DEFAULT, FORMS, Form, Scores, mean_of_groups
from scipy.stats import rankdata

from bloodauto.config.recipe import parse_recipe
from bloodauto.shift.overlap import training_coverage
from bloodauto.training.augmentation import policy_of

_RESAMPLES = 2000
_INTERVAL = (0.05, 0.95)
_COVERED_WEIGHTS = (0.5, 0.25, 0.0)
_DEFAULT_COVERED_WEIGHT = 0.25
_TRIALS = (4, 8, 16)
_HALVES = 8
_HIGH_SEVERITIES = slice(2, None)


@dataclass(frozen=True)
class RecordedScores:
    """The recorded table; arrays have a row for each recipe.

    Attributes:
        names: of the recipes.
        groups: str (families,).
        clean: balanced accuracy on clean images, float (recipes,).
        balanced: balanced accuracy, float (recipes, families, severities).
        external: accuracy, float (recipes,), by the name of an external data set.
        covered: what each recipe trains on, bool (recipes, families, severities).
        harsher: see ``objective_forms.Scores``.
        site_accuracy: see ``objective_forms.Scores``.
    """

    names: tuple[str, ...]
    groups: np.ndarray
    clean: np.ndarray
    balanced: np.ndarray
    external: dict[str, np.ndarray]
    covered: np.ndarray
    harsher: np.ndarray
    site_accuracy: np.ndarray

    def scores(self, families: np.ndarray, covered_weight: float = 1.0, *, per_recipe: bool = False) -> Scores:
        """What a candidate may use when all but some families are hidden from it.

        Args:
            families: the families that are not hidden, bool (families,).
            covered_weight: of what recipes may train on.
            per_recipe: whether each recipe's own training decides, or that of all recipes together.
        """
        covered = self.covered if per_recipe else self.covered.any(axis=0, keepdims=True)
        weights = np.where(covered, covered_weight, 1.0)[:, families]
        has_combined = bool((self.groups[families] == COMBINED).any())
        return Scores(
            self.clean,
            self.balanced[:, families],
            self.groups[families],
            weights,
            harsher=self.harsher if has_combined else None,
            site_accuracy=self.site_accuracy if has_combined else None,
        )


@dataclass(frozen=True)
class CandidateResult:
    """One candidate's rank correlations, each with its interval (low, high)."""

    name: str
    held_out: float
    held_out_interval: tuple[float, float]
    held_out_half: tuple[float, float, float]
    external: dict[str, tuple[float, float, float]]

    @property
    def mean_over_synthetic_sites(self) -> float:
        """Mean over the synthetic sites; real ones have no part in the choice."""
        values = [value for name, (value, _, _) in self.external.items() if name.startswith("synthetic")]
        return float(np.mean(values)) if values else 0.0


def read_table(path: Path) -> RecordedScores:
    """Reads what ``record_objective.py`` wrote."""
    table = json.loads(path.read_text(encoding="utf-8"))
    entries = table["recipes"]
    severities = table["severities"]
    return RecordedScores(
        names=tuple(entry["name"] for entry in entries),
        groups=np.array([family["group"] for family in table["families"]]),
        clean=np.array([entry["clean"]["balanced_accuracy"] for entry in entries]),
        balanced=np.array([entry["balanced"] for entry in entries]),
        external={name: np.array([entry["external"][name] for entry in entries]) for name in entries[0]["external"]},
        harsher=np.array([entry["harsher"] for entry in entries]),
        site_accuracy=np.array([entry["site_accuracy"] for entry in entries]),
        covered=np.stack([_covered_by_training(entry["recipe"], table["families"], severities) for entry in entries]),
    )


def _covered_by_training(
    recipe: dict[str, object], families: list[dict[str, str]], severities: list[int]
) -> np.ndarray:
    """Whether a recipe trains on each family and severity: bool (families, severities)."""
    policy = policy_of(parse_recipe(recipe, origin="the recorded table").augmentation)
    reached = {coverage.family: coverage.severity for coverage in training_coverage([policy])}
    return np.array([[severity <= reached.get(family["name"], 0.0) for severity in severities] for family in families])


def _correlations(candidate: np.ndarray, truth: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Spearman's correlation in each resample; rows int (resamples, recipes). Ties share their rank; constants give 0."""
    ranks = [rankdata(values[rows], axis=1) for values in (candidate, truth)]
    centred = [values - values.mean(axis=1, keepdims=True) for values in ranks]
    spread = np.sqrt((centred[0] ** 2).sum(axis=1) * (centred[1] ** 2).sum(axis=1))
    return np.asarray((centred[0] * centred[1]).sum(axis=1) / np.where(spread > 0, spread, np.inf))


def compare(table: RecordedScores, *, seed: int = 0) -> list[CandidateResult]:
    """Evaluates every candidate; the highest sum of the held-out half and the mean of the synthetic sites comes first."""
    count = len(table.names)
    resamples = np.random.default_rng(seed).integers(count, size=(_RESAMPLES, count))
    # The first row is the table itself, the others its resamples.
    rows = np.concatenate([np.arange(count)[None], resamples])
    lines = [_candidate_result(name, form, table, rows, 1.0, per_recipe=False) for name, form in FORMS.items()]
    for weight in _COVERED_WEIGHTS:
        for kind, form in (
            ("mean of groups and clean", mean_of_groups),
            ("half combined shift, severities 3 to 5", DEFAULT),
        ):
            lines.append(
                _candidate_result(
                    f"{kind}, covered images weigh {weight:g}", form, table, rows, weight, per_recipe=False
                )
            )
    name = "mean of groups and clean, each recipe without its own augmentation"
    lines.append(_candidate_result(name, mean_of_groups, table, rows, 0.0, per_recipe=True))
    return sorted(lines, key=lambda line: -line.held_out_half[0] - line.mean_over_synthetic_sites)


def _candidate_result(
    name: str, form: Form, table: RecordedScores, rows: np.ndarray, covered_weight: float, *, per_recipe: bool
) -> CandidateResult:
    per_group = []
    for group in dict.fromkeys(table.groups.tolist()):
        hidden = table.groups == group
        truth = table.balanced[:, hidden].mean(axis=(1, 2))
        per_group.append(_correlations(form(table.scores(~hidden, covered_weight, per_recipe=per_recipe)), truth, rows))
    held_out = np.mean(per_group, axis=0)
    halves = [
        _correlations(
            form(table.scores(~half, covered_weight, per_recipe=per_recipe)),
            table.balanced[:, half, _HIGH_SEVERITIES].mean(axis=(1, 2)),
            rows,
        )
        for half in _random_halves(table.groups)
    ]
    everything = form(table.scores(np.ones(len(table.groups), bool), covered_weight, per_recipe=per_recipe))
    external = {}
    for other, truth in table.external.items():
        correlations = _correlations(everything, truth, rows)
        low, high = np.quantile(correlations[1:], _INTERVAL)
        external[other] = (float(correlations[0]), float(low), float(high))
    low, high = np.quantile(held_out[1:], _INTERVAL)
    half = np.mean(halves, axis=0)
    half_low, half_high = np.quantile(half[1:], _INTERVAL)
    of_half = (float(half[0]), float(half_low), float(half_high))
    return CandidateResult(name, float(held_out[0]), (float(low), float(high)), of_half, external)


def _random_halves(groups: np.ndarray) -> list[np.ndarray]:
    """Draws half of the families of each group except the combined one, several times: bool (families,) each."""
    rng = np.random.default_rng(0)
    halves = []
    for _ in range(_HALVES):
        half = np.zeros(len(groups), bool)
        for group in dict.fromkeys(groups.tolist()):
            members = np.flatnonzero(groups == group)
            if group != COMBINED:
                half[rng.permutation(members)[: len(members) // 2]] = True
        halves.append(half)
    return halves


@dataclass(frozen=True)
class ObjectiveGain:
    """Mean accuracies of the recipe that is selected among some, by clean accuracy and by the default objective."""

    trials: int
    by_accuracy: dict[str, float]
    by_objective: dict[str, float]


def objective_gain(table: RecordedScores, trials: int, *, seed: int = 0) -> ObjectiveGain:
    """Computes what the objective gains over clean accuracy when the best of ``trials`` random recipes is selected."""
    rng = np.random.default_rng(seed)
    draws = np.stack([rng.permutation(len(table.names))[:trials] for _ in range(_RESAMPLES)])

    def select(score: np.ndarray) -> np.ndarray:
        return np.asarray(draws[np.arange(_RESAMPLES), score[draws].argmax(axis=1)])

    by_accuracy, by_objective = select(table.clean), {}
    everything = select(DEFAULT(table.scores(np.ones(len(table.groups), bool), _DEFAULT_COVERED_WEIGHT)))
    held_out, objective_held_out = [], []
    for group in dict.fromkeys(table.groups.tolist()):
        hidden = table.groups == group
        truth = table.balanced[:, hidden].mean(axis=(1, 2))
        held_out.append(truth[by_accuracy].mean())
        objective_held_out.append(truth[select(DEFAULT(table.scores(~hidden, _DEFAULT_COVERED_WEIGHT)))].mean())
    by_objective["held-out groups"] = float(np.mean(objective_held_out))
    accuracies = {"held-out groups": float(np.mean(held_out))}
    for other, truth in table.external.items():
        accuracies[other], by_objective[other] = float(truth[by_accuracy].mean()), float(truth[everything].mean())
    accuracies["clean"], by_objective["clean"] = table.clean[by_accuracy].mean(), table.clean[everything].mean()
    return ObjectiveGain(trials, accuracies, by_objective)


def gains_as_markdown(gains: list[ObjectiveGain]) -> str:
    """Formats the gains as the table in docs/experiments."""
    columns = list(gains[0].by_accuracy)
    rows = [["recipes", "selected by", *(column.replace("_", " ") for column in columns)], ["---"] * (len(columns) + 2)]
    for gain in gains:
        for name, accuracies in (("clean accuracy", gain.by_accuracy), ("the objective", gain.by_objective)):
            rows.append([str(gain.trials), name, *(f"{accuracies[column]:.3f}" for column in columns)])
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def _format_interval(value: float, low: float, high: float) -> str:
    return f"{value:.2f} ({low:.2f} to {high:.2f})"


def as_markdown(lines: list[CandidateResult]) -> str:
    """Formats the candidates as the table in docs/experiments."""
    external = list(lines[0].external)
    rows = [
        [
            "objective",
            "held-out groups",
            "held-out half",
            "mean of synthetic sites",
            *(name.replace("_", " ") for name in external),
        ]
    ]
    rows.append(["---"] * len(rows[0]))
    for line in lines:
        rows.append(
            [
                line.name,
                _format_interval(line.held_out, *line.held_out_interval),
                _format_interval(*line.held_out_half),
                f"{line.mean_over_synthetic_sites:.2f}",
                *(_format_interval(*line.external[name]) for name in external),
            ]
        )
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("table", type=Path, help="what record_objective.py wrote")
    parser.add_argument("--seed", type=int, default=0, help="of the resamples")
    arguments = parser.parse_args()
    table = read_table(arguments.table)
    print(f"{len(table.names)} recipes, {len(table.groups)} families; Spearman's correlation (90 % interval)\n")
    print(as_markdown(compare(table, seed=arguments.seed)))
    print("\nMean accuracy of the best of some recipes drawn from the table\n")
    print(gains_as_markdown([objective_gain(table, trials, seed=arguments.seed) for trials in _TRIALS]))


if __name__ == "__main__":
    main()
