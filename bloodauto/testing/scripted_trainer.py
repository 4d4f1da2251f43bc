"""A trainer without a network: epochs of a given length, and faults on demand, for tests of executors."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bloodauto.clock import SYSTEM_CLOCK
from bloodauto.errors import TrialAbort
from bloodauto.run.artifacts import EpochReport
from bloodauto.run.training_directory import TrainingDirectory
from bloodauto.training.limits import ScheduleProgress, stage_ends
from bloodauto.tuning.executors.simulated import CurvePoint, Fault, epoch_report
from bloodauto.tuning.executors.trainer import Heartbeat, Training, TrialTrainer
from bloodauto.tuning.messages import Completed, Stopped, TrainingRequest

_SLICE_SECONDS = 0.05
_DEATH_EXIT_CODE = 9
_END_FILE = "scripted-end.txt"
#: The "epoch" of a fault that comes when everything is written and nothing is told.
AT_THE_END = 0


@dataclass(frozen=True)
class ScriptedTrainerFactory:
    """Makes trainers that follow a script.

    Attributes:
        run: The run directory.
        epoch_seconds: Wall seconds of an epoch, by the label of the backbone.
        faults: What goes wrong; as in the simulated executor.
    """

    run: Path
    epoch_seconds: Mapping[str, float]
    faults: tuple[Fault, ...] = ()

    def make_trainer(self) -> TrialTrainer:
        """The trainer of this process."""
        return ScriptedTrainer(self)

    def end_on_disk(self, training: TrainingDirectory) -> Completed | None:
        """As ``TrainerFactory.end_on_disk``."""
        path = training.root / _END_FILE
        return Completed(float(path.read_text(encoding="utf-8")), is_timed=False) if path.is_file() else None


class ScriptedTrainer:
    """Sleeps through its epochs, honours time limits, and resumes from a checkpoint.

    Args:
        script: What happens.
    """

    def __init__(self, script: ScriptedTrainerFactory) -> None:
        self._script, self._clock = script, SYSTEM_CLOCK

    def train(self, request: TrainingRequest, heartbeat: Heartbeat) -> Training:
        """As ``TrialTrainer.train``."""
        clock, recipe, folder = self._clock, request.recipe, self._script.run / request.folder
        limits = request.limits.shifted(clock.now() - clock.wall())
        epoch, done = _read_checkpoint(folder)
        first_batch_at, objective = clock.now(), min(0.5 + 0.05 * epoch, 1.0)
        progress = ScheduleProgress(
            stage_ends(recipe), training_seconds=limits.training_seconds_from(first_batch_at), done=done
        )
        while progress.stage_fraction(0, clock.now() - first_batch_at) < 1.0:
            epoch += 1
            self._meet_fault(request.name, folder, epoch)
            begun_at, end_at = clock.now(), clock.now() + self._script.epoch_seconds[recipe.backbone.label]
            end_at = min(end_at, first_batch_at + progress.seconds_until_stage_end(0))
            while clock.now() < end_at:
                if limits.is_past_deadline(clock.now()):
                    return Stopped()
                if heartbeat():
                    _write_checkpoint(folder, epoch - 1, progress.by_steps)
                    return Stopped()
                time.sleep(min(_SLICE_SECONDS, max(end_at - clock.now(), 0.0)))
            progress.advance(1 / recipe.total_epochs)
            objective = min(0.5 + 0.05 * epoch, 1.0)
            _write_checkpoint(folder, epoch, progress.by_steps)
            yield _report(objective, epoch, clock.now() - begun_at)
        (folder / _END_FILE).write_text(str(objective), encoding="utf-8")
        self._meet_fault(request.name, folder, AT_THE_END)
        return Completed(objective)

    def close(self) -> None:
        """As ``TrialTrainer.close``; there is nothing to free."""

    def _meet_fault(self, name: str, folder: Path, epoch: int) -> None:
        for fault in self._script.faults:
            marks = [folder / f"fault-{epoch}-{index}" for index in range(fault.times)]
            unmet = [mark for mark in marks if not mark.exists()]
            if (fault.training, fault.epoch) == (name, epoch) and unmet:
                unmet[0].touch()
                _fail(fault)


def _fail(fault: Fault) -> None:
    if fault.kind == "dies":
        os._exit(_DEATH_EXIT_CODE)
    if fault.kind == "hangs":
        time.sleep(10_000)
    if fault.kind == "abort":
        raise TrialAbort("abort", "scripted")
    raise ValueError("scripted")


def _report(objective: float, epoch: int, seconds: float) -> EpochReport:
    return epoch_report(CurvePoint(objective, seconds, 0.0), epoch=epoch, stage=0, stage_progress=1.0, seconds=seconds)


def _read_checkpoint(folder: Path) -> tuple[int, float]:
    path = folder / "scripted.json"
    if not path.is_file():
        return 0, 0.0
    checkpoint = json.loads(path.read_text(encoding="utf-8"))
    return int(checkpoint["epoch"]), float(checkpoint["done"])


def _write_checkpoint(folder: Path, epoch: int, done: float) -> None:
    partial = folder / "scripted.partial"
    partial.write_text(json.dumps({"epoch": epoch, "done": done}), encoding="utf-8")
    partial.replace(folder / "scripted.json")
