"""The leaderboard of a run: ensemble, refits and trials side by side, the best first."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from bloodauto.errors import RunError
from bloodauto.report.formatting import training_name
from bloodauto.report.read import read_run
from bloodauto.report.run_info import STATE_LABELS, RunInfo, TrialInfo
from bloodauto.run.artifacts import EnsembleMember, TrainingResult
from bloodauto.run.directory import RunDirectory
from bloodauto.run.training_directory import TrainingDirectory

RowKind = Literal["ensemble", "refit", "trial"]


@dataclass(frozen=True)
class LeaderboardRow:
    """One model of a run. Scores are on validation images, 0-1; None stands for what is unknown.

    Attributes:
        name: ``ensemble``, or the training's.
        kind: ``ensemble``, ``refit`` or ``trial``.
        trial: Number of the trial whose recipe it has; None for the ensemble.
        backbone: Label of its backbone; of an ensemble the number of its networks, in words.
        score: The primary objective.
        shift: Score of the shift suite.
        accuracy: On clean images.
        device_seconds: Devices reserved x seconds reserved; of the ensemble, all that the run spent.
        latency_ms: Milliseconds for one image, measured in batches; of the ensemble, the sum over its networks.
        parameters: Of all its networks.
        weight: In the ensemble; 0 for what is not in it.
    """

    name: str
    kind: RowKind
    trial: int | None
    backbone: str
    score: float | None
    shift: float | None
    accuracy: float | None
    device_seconds: float | None
    latency_ms: float | None
    parameters: int | None
    weight: float


@dataclass(frozen=True)
class Leaderboard:
    """What a run has to offer.

    Attributes:
        run: Its directory.
        objective: Name of the score.
        device: ``cpu`` or ``gpu``, or ``device`` where the settings are unknown.
        rows: The ensemble first, then by score.
        not_listed: Number of trials without a comparable score, by how they ended.
        notes: What is missing or broken in the run.
    """

    run: Path
    objective: str
    device: str
    rows: tuple[LeaderboardRow, ...]
    not_listed: tuple[tuple[str, int], ...]
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values for programs."""
        return {
            "run": str(self.run),
            "objective": self.objective,
            "device": self.device,
            "rows": [asdict(row) for row in self.rows],
            "not_listed": dict(self.not_listed),
            "notes": list(self.notes),
        }


def read_leaderboard(root: Path) -> Leaderboard:
    """Reads the leaderboard of a run, finished or not. Nothing in the run is written or locked.

    Completed trials, refits and the ensemble are listed, and of the other trials those that the ensemble has. The score of a
    trial that was pruned or cut is that of fewer epochs and is not compared.

    Args:
        root: The run directory.

    Raises:
        RunError: No run there, or one of another format version.

    Example:
        >>> import tempfile
        >>> from bloodauto.testing.run_factory import build_run
        >>> board = read_leaderboard(build_run(Path(tempfile.mkdtemp()) / "run", trials=8).root)
        >>> board.objective, board.rows[0].name
        ('shift', 'ensemble')
    """
    info, run = read_run(root), RunDirectory(Path(root))
    members = _members(info)
    backbones = {trial.number: trial.attributes.backbone for trial in info.trials}
    spent = {} if not info.ledger else run.ledger.device_seconds_by_phase()
    listed = [trial for trial in info.trials if trial.state == "complete" or trial.number in _trials_of(members)]
    rows = [_trial_row(trial, members) for trial in listed]
    for directory in run.refits():
        result = _result_of(directory)
        name = directory.root.name
        if result is not None:
            rows.append(_refit_row(name, result, backbones, spent.get(f"refit {name}"), members))
    rows.sort(key=lambda row: (-math.inf if row.score is None else row.score, row.name), reverse=True)
    numbers = {trial.number for trial in listed}
    rest = Counter(STATE_LABELS[trial.state] for trial in info.trials if trial.number not in numbers)
    return Leaderboard(
        run=Path(root),
        objective="objective" if info.settings is None else info.settings.objectives.primary,
        device=info.device,
        rows=(*_ensemble_row(info, members), *rows),
        not_listed=tuple(sorted(rest.items())),
        notes=(
            *(f"{note.source}: {note.text}" for note in info.notes if "could not be read" in note.text),
            *_damaged_results(run),
        ),
    )


def _members(info: RunInfo) -> dict[str, EnsembleMember]:
    """The member that each training belongs to, by the training's name."""
    members = () if info.ensemble is None else info.ensemble.members
    return {network.name: member for member in members for network in member.networks}


def _trials_of(members: dict[str, EnsembleMember]) -> set[int]:
    """Numbers of the trials that are themselves networks of the ensemble."""
    return {int(name) for name in members if name.isdigit()}


def _weight(name: str, members: dict[str, EnsembleMember]) -> float:
    member = members.get(name)
    return 0.0 if member is None else member.weight


def _trial_row(trial: TrialInfo, members: dict[str, EnsembleMember]) -> LeaderboardRow:
    result = trial.result
    return LeaderboardRow(
        name=f"trial {trial.number}",
        kind="trial",
        trial=trial.number,
        backbone=trial.attributes.backbone,
        score=trial.objective,
        shift=trial.shift_score,
        accuracy=trial.clean_accuracy,
        device_seconds=trial.device_seconds,
        latency_ms=None if result is None else result.latency_ms,
        parameters=None if result is None else result.parameters,
        weight=_weight(f"{trial.number:05d}", members),
    )


def _refit_row(
    name: str,
    result: TrainingResult,
    backbones: dict[int, str],
    device_seconds: float | None,
    members: dict[str, EnsembleMember],
) -> LeaderboardRow:
    number = name.partition("-")[0]
    trial = int(number) if number.isdigit() else None
    return LeaderboardRow(
        name=training_name(name),
        kind="refit",
        trial=trial,
        backbone="" if trial is None else backbones.get(trial, ""),
        score=result.objective,
        shift=result.shift,
        accuracy=result.metrics.accuracy,
        device_seconds=device_seconds,
        latency_ms=result.latency_ms,
        parameters=result.parameters,
        weight=_weight(name, members),
    )


def _ensemble_row(info: RunInfo, members: dict[str, EnsembleMember]) -> Iterator[LeaderboardRow]:
    ensemble = info.ensemble
    if ensemble is None:
        return
    scores = ensemble.scores.known()
    networks = [network for member in ensemble.members for network in member.networks]
    yield LeaderboardRow(
        name="ensemble",
        kind="ensemble",
        trial=None,
        backbone=f"{len(networks)} network{'s' if len(networks) > 1 else ''}",
        score=scores.get(ensemble.metric),
        shift=scores.get("shift"),
        accuracy=scores.get("accuracy"),
        device_seconds=info.spent_device_seconds,
        latency_ms=_total_latency_ms([network.files for network in networks]),
        parameters=sum(member.parameters for member in ensemble.members),
        weight=sum({member.name: member.weight for member in members.values()}.values()),
    )


def _result_of(directory: TrainingDirectory) -> TrainingResult | None:
    """What a training came to; None where nothing is written, or the file is damaged."""
    try:
        return directory.result.read_if_exists()
    except RunError:
        return None


def _damaged_results(run: RunDirectory) -> Iterator[str]:
    for directory in run.refits():
        if directory.result.exists and _result_of(directory) is None:
            yield f"{directory.root.name} is not listed: {directory.result.path} is damaged"


def _total_latency_ms(networks: Sequence[TrainingDirectory]) -> float | None:
    latencies = [result.latency_ms if (result := _result_of(directory)) is not None else None for directory in networks]
    known = [latency for latency in latencies if latency is not None]
    return sum(known) if known and len(known) == len(latencies) else None
