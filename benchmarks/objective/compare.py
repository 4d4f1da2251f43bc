"""Which number ranks recipes as data that none of them saw would rank them?

    python benchmarks/objective/compare.py benchmarks/objective/recipes.json

Reads what ``record.py`` recorded and ranks the candidates of ``forms.py`` by two rank correlations over the recipes:

- *held-out causes*: one group of families is left out in turn, the candidate is computed without it and correlated with
  the balanced accuracy on it; the mean over the groups.
- *held-out half*: half of the families of every group are left out, the candidate is computed without them and correlated
  with the balanced accuracy on all of them at severities 3 to 5, as a set of corrupted cells has them; the mean over draws. The
  laboratory group is never among those left out, and what all at once make of a cell has some of each in it.
- *other laboratories*: the candidate on all families, correlated with the accuracy on each recorded other set.

Then what the choice is worth: of a few recipes drawn from the table, as a search has them, the best by clean accuracy and the
best by the default objective are compared in the other laboratories, and on each group of families with an objective that
does not look at it.

Intervals are 90 % bootstrap intervals over the recipes. "Discounted" forms count views by what the recipes may train on:
by what any recipe of the table may (one weight for all, as a search does it), or each recipe by what itself trains on.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from forms import COMBINED, DEFAULT, FORMS, Form, Scores, mean_of_groups
from scipy.stats import rankdata

_RESAMPLES = 2000
_INTERVAL = (0.05, 0.95)
_COVERED_WEIGHTS = (0.5, 0.25, 0.0)
_DEFAULT_COVERED_WEIGHT = 0.25
_TRIALS = (4, 8, 16)
_HALVES = 8
_HIGH_SEVERITIES = slice(2, None)


@dataclass(frozen=True)
class RecordedScores:
    """The recorded table; ``others``: accuracy, float (recipes,), by the name of another laboratory's set.

    ``beyond`` and ``places``: of ``forms.Scores``.
    """

    names: tuple[str, ...]
    groups: np.ndarray
    clean: np.ndarray
    balanced: np.ndarray
    external: dict[str, np.ndarray]
    covered: np.ndarray
    harsher: np.ndarray
    site_accuracy: np.ndarray

    def scores(self, families: np.ndarray, covered_weight: float = 1.0, *, own: bool = False) -> Scores:
        """What a candidate may look at when only ``families`` are shown to it.

        Args:
            families: bool (families,).
            covered_weight: of what recipes may train on.
            own: whether each recipe's own training decides, or that of all recipes together.
        """
        seen = self.covered if own else self.covered.any(axis=0, keepdims=True)
        weights = np.where(seen, covered_weight, 1.0)[:, families]
        together = bool((self.groups[families] == COMBINED).any())
        return Scores(
            self.clean,
            self.balanced[:, families],
            self.groups[families],
            weights,
            harsher=self.harsher if together else None,
            site_accuracy=self.site_accuracy if together else None,
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
        """Over the drawn laboratories; real ones judge the choice and have no part in it."""
        drawn = [value for name, (value, _, _) in self.external.items() if name.startswith("synthetic")]
        return float(np.mean(drawn)) if drawn else 0.0


def read_table(path: Path) -> RecordedScores:
    """Reads what ``record.py`` wrote."""
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
    from bloodauto.config.recipe import parse_recipe
    from bloodauto.shift.overlap import training_coverage
    from bloodauto.training.augmentation import policy_of

    policy = policy_of(parse_recipe(recipe, origin="the recorded table").augmentation)
    reached = {coverage.family: coverage.severity for coverage in training_coverage([policy])}
    return np.array([[severity <= reached.get(family["name"], 0.0) for severity in severities] for family in families])


def _correlations(candidate: np.ndarray, truth: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Spearman's correlation in each resample; rows int (resamples, recipes). Ties share their rank; constants give 0."""
    ranks = [rankdata(values[rows], axis=1) for values in (candidate, truth)]
    centred = [one - one.mean(axis=1, keepdims=True) for one in ranks]
    spread = np.sqrt((centred[0] ** 2).sum(axis=1) * (centred[1] ** 2).sum(axis=1))
    return (centred[0] * centred[1]).sum(axis=1) / np.where(spread > 0, spread, np.inf)


def compare(table: RecordedScores, *, seed: int = 0) -> list[CandidateResult]:
    """Every candidate, the highest sum of the held-out half and the mean of the drawn laboratories first."""
    count = len(table.names)
    drawn = np.random.default_rng(seed).integers(count, size=(_RESAMPLES, count))
    # The first row is the table itself, the others its resamples.
    rows = np.concatenate([np.arange(count)[None], drawn])
    lines = [_candidate_result(name, form, table, rows, 1.0, own=False) for name, form in FORMS.items()]
    for weight in _COVERED_WEIGHTS:
        for kind, form in (
            ("mean of groups and clean", mean_of_groups),
            ("half laboratory, severities 3 to 5", DEFAULT),
        ):
            lines.append(
                _candidate_result(f"{kind}, rehearsed views count {weight:g}", form, table, rows, weight, own=False)
            )
    name = "mean of groups and clean, each recipe without what itself rehearsed"
    lines.append(_candidate_result(name, mean_of_groups, table, rows, 0.0, own=True))
    return sorted(lines, key=lambda line: -line.held_out_half[0] - line.mean_over_synthetic_sites)


def _candidate_result(
    name: str, form: Form, table: RecordedScores, rows: np.ndarray, covered_weight: float, *, own: bool
) -> CandidateResult:
    per_group = []
    for group in dict.fromkeys(table.groups.tolist()):
        left_out = table.groups == group
        truth = table.balanced[:, left_out].mean(axis=(1, 2))
        per_group.append(_correlations(form(table.scores(~left_out, covered_weight, own=own)), truth, rows))
    held_out = np.mean(per_group, axis=0)
    halves = [
        _correlations(
            form(table.scores(~half, covered_weight, own=own)),
            table.balanced[:, half, _HIGH_SEVERITIES].mean(axis=(1, 2)),
            rows,
        )
        for half in _random_halves(table.groups)
    ]
    everything = form(table.scores(np.ones(len(table.groups), bool), covered_weight, own=own))
    external = {}
    for other, truth in table.external.items():
        found = _correlations(everything, truth, rows)
        low, high = np.quantile(found[1:], _INTERVAL)
        external[other] = (float(found[0]), float(low), float(high))
    low, high = np.quantile(held_out[1:], _INTERVAL)
    half = np.mean(halves, axis=0)
    of_half = (float(half[0]), *(float(bound) for bound in np.quantile(half[1:], _INTERVAL)))
    return CandidateResult(name, float(held_out[0]), (float(low), float(high)), of_half, external)


def _random_halves(groups: np.ndarray) -> list[np.ndarray]:
    """Half of the families of each group but the laboratory, again and again: bool (families,) each."""
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
    """Mean accuracies of what is chosen among so many recipes, by clean accuracy and by the default objective."""

    trials: int
    by_accuracy: dict[str, float]
    by_objective: dict[str, float]


def objective_gain(table: RecordedScores, trials: int, *, seed: int = 0) -> ObjectiveGain:
    """What the objective gains over clean accuracy, when the best of ``trials`` random recipes is taken."""
    rng = np.random.default_rng(seed)
    drawn = np.stack([rng.permutation(len(table.names))[:trials] for _ in range(_RESAMPLES)])

    def chosen(score: np.ndarray) -> np.ndarray:
        return drawn[np.arange(_RESAMPLES), score[drawn].argmax(axis=1)]

    by_accuracy, by_objective = chosen(table.clean), {}
    everything = chosen(DEFAULT(table.scores(np.ones(len(table.groups), bool), _DEFAULT_COVERED_WEIGHT)))
    held_out, objective_held_out = [], []
    for group in dict.fromkeys(table.groups.tolist()):
        left_out = table.groups == group
        truth = table.balanced[:, left_out].mean(axis=(1, 2))
        held_out.append(truth[by_accuracy].mean())
        objective_held_out.append(truth[chosen(DEFAULT(table.scores(~left_out, _DEFAULT_COVERED_WEIGHT)))].mean())
    by_objective["held-out causes"] = float(np.mean(objective_held_out))
    accuracies = {"held-out causes": float(np.mean(held_out))}
    for other, truth in table.external.items():
        accuracies[other], by_objective[other] = float(truth[by_accuracy].mean()), float(truth[everything].mean())
    accuracies["clean"], by_objective["clean"] = table.clean[by_accuracy].mean(), table.clean[everything].mean()
    return ObjectiveGain(trials, accuracies, by_objective)


def gains_as_markdown(gains: list[ObjectiveGain]) -> str:
    """The second table of the documents."""
    columns = list(gains[0].by_accuracy)
    rows = [["recipes", "chosen by", *(column.replace("_", " ") for column in columns)], ["---"] * (len(columns) + 2)]
    for one in gains:
        for name, found in (("clean accuracy", one.by_accuracy), ("the objective", one.by_objective)):
            rows.append([str(one.trials), name, *(f"{found[column]:.3f}" for column in columns)])
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def _format_interval(value: float, low: float, high: float) -> str:
    return f"{value:.2f} ({low:.2f} to {high:.2f})"


def as_markdown(lines: list[CandidateResult]) -> str:
    """The table as it stands in the documents."""
    external = list(lines[0].external)
    rows = [
        [
            "objective",
            "held-out causes",
            "held-out half",
            "mean of drawn labs",
            *(other.replace("_", " ") for other in external),
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
                *(_format_interval(*line.external[one]) for one in external),
            ]
        )
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("table", type=Path, help="what record.py wrote")
    parser.add_argument("--seed", type=int, default=0, help="of the resamples")
    arguments = parser.parse_args()
    table = read_table(arguments.table)
    print(f"{len(table.names)} recipes, {len(table.groups)} families; Spearman's correlation (90 % interval)\n")
    print(as_markdown(compare(table, seed=arguments.seed)))
    print("\nWhat the choice is worth: mean accuracy of the best of some recipes drawn from the table\n")
    print(gains_as_markdown([objective_gain(table, trials, seed=arguments.seed) for trials in _TRIALS]))


if __name__ == "__main__":
    main()
