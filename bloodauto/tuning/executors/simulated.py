"""The policy's second executor: simulated workers on a simulated clock, thousands of trials in seconds."""

from __future__ import annotations

import heapq
import itertools
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Literal

from bloodauto.config.recipe import Recipe
from bloodauto.run.artifacts import EpochReport
from bloodauto.testing.learning_curves import CurvePoint
from bloodauto.training.limits import ScheduleProgress, TimeLimits, stage_ends
from bloodauto.tuning.budget.ledger import Ledger
from bloodauto.tuning.messages import Assignment, TrainingEnd
from bloodauto.tuning.scheduler import Scheduler

#: (recipe, seed of the training, epoch from 1) -> what that epoch does.
Curve = Callable[[Recipe, int, int], CurvePoint]

#: A training that reached its time limit still ends the batch it is in.
_BATCH_FRACTION = 0.01


@dataclass(frozen=True)
class Fault:
    """Something that goes wrong in one training.

    Attributes:
        training: the assignment's name.
        epoch: in which of its epochs, from 1.
        kind: ``crash``: it ends with an error of its own; ``abort``: with one that every training would have; ``dies``:
            its process is gone; ``hangs``: it is not heard of again until its process is killed.
        times: how often; a restarted training meets it again until then.
    """

    training: str
    epoch: int
    kind: Literal["crash", "abort", "dies", "hangs"]
    times: int = 1


@dataclass(frozen=True)
class SimulatedMachine:
    """What the simulated workers are like, in wall seconds.

    Attributes:
        cold_start_seconds: from an assignment to its training's first batch in a new process; warm_start_seconds: in
            one that has trained before.
        finish_seconds: from the last epoch to the end.
        tick_seconds: how often the executor looks at watchdog and budget when nothing else happens.
        restarts: how often a training whose process died is gone on with in a new one.
    """

    cold_start_seconds: float = 12.0
    warm_start_seconds: float = 3.0
    finish_seconds: float = 3.0
    tick_seconds: float = 10.0
    restarts: int = 2
    faults: tuple[Fault, ...] = ()


@dataclass(frozen=True)
class SimulatedTraining:
    """One training in one session.

    Attributes:
        first_epoch: 1, or the first after a resume.
        epochs: how many it did in this session.
        ending: None when the session ended before it did.
    """

    assignment: Assignment
    started_at: float
    ended_at: float
    first_epoch: int
    epochs: int
    ending: TrainingEnd | None


@dataclass(frozen=True)
class SimulatedSession:
    """What one session did, its trainings in the order of their ends."""

    trainings: tuple[SimulatedTraining, ...]
    interrupted: bool


@dataclass(frozen=True)
class _Checkpoint:
    """A training's checkpoint; ``step_fraction``: share of all its steps, 0-1."""

    epoch: int = 0
    stage: int = 0
    step_fraction: float = 0.0
    best: float = 0.0


@dataclass(frozen=True)
class _Event:
    """What a worker says, and when; a death is said by ``ending`` None and ``report`` None."""

    at: float
    report: EpochReport | None = None
    progress: _Checkpoint | None = None
    ending: TrainingEnd | None = None


@dataclass
class _Slot:
    name: str
    cold: bool = True
    assignment: Assignment | None = None
    events: Generator[_Event, None, None] | None = None
    started_at: float = 0.0
    first_epoch: int = 1
    epochs: int = 0
    deaths: int = 0
    hangs: bool = False
    #: Events of a process that was killed meanwhile are not this life's.
    generation: int = 0


class Simulator:
    """Simulated time, workers and disk; several sessions of one search can run on it, one after the other.

    Args:
        curve: what each epoch of each training does.
        machine: what the workers are like.
        others: the values of further objectives that a recipe ends with.
    """

    def __init__(
        self,
        curve: Curve,
        machine: SimulatedMachine | None = None,
        secondary: Callable[[Recipe], tuple[float, ...]] = lambda recipe: (),
    ) -> None:
        self._curve, self._secondary = curve, secondary
        self._machine = SimulatedMachine() if machine is None else machine
        self._time = 0.0
        self._disk: dict[str, _Checkpoint] = {}
        self._faults_met: Counter[Fault] = Counter()

    def now(self) -> float:
        """The simulated time, in seconds: the clock of ledger and policy."""
        return self._time

    def wait(self, seconds: float) -> None:
        """Lets time pass in which nobody works."""
        self._time += seconds

    def run(
        self,
        scheduler: Scheduler,
        ledger: Ledger,
        *,
        workers: int,
        devices_per_worker: float = 1.0,
        stop_at: float | None = None,
        kill: bool = False,
    ) -> SimulatedSession:
        """Runs one session to its end, or to an interruption.

        Args:
            stop_at: the simulated time of an interruption; None: none.
            kill: at the interruption nothing is put in order any more; otherwise the slots are released.
        """
        session = _Session(self, scheduler, ledger, [f"worker {index}" for index in range(workers)])
        for slot in session.slots:
            ledger.reserve(slot.name, devices_per_worker, "start-up")
        interrupted = session.run(stop_at)
        if not interrupted:
            scheduler.close()
        if not (interrupted and kill):
            for slot in session.slots:
                ledger.release(slot.name)
        return SimulatedSession(tuple(session.done), interrupted)

    def _fault(self, name: str, epoch: int) -> str | None:
        for fault in self._machine.faults:
            if (fault.training, fault.epoch) == (name, epoch) and self._faults_met[fault] < fault.times:
                self._faults_met[fault] += 1
                return fault.kind
        return None

    def _train(
        self, assignment: Assignment, assigned_at: float, start_seconds: float, hard_limit: float
    ) -> Generator[_Event, None, None]:
        """What the worker of one training says; as ``trial/train.py``, without patience."""
        recipe = assignment.recipe
        state = self._disk.get(assignment.name, _Checkpoint())
        within = assignment.time_limit_with_startup_seconds
        limits = TimeLimits(
            training_seconds=assignment.time_limit_seconds,
            schedule_until=None if within is None else assigned_at + within,
            hard_deadline=hard_limit,
        )
        began = now = self._time + start_seconds
        ends = stage_ends(recipe)
        progress = ScheduleProgress(
            ends, training_seconds=limits.training_seconds_from(began), done=state.step_fraction
        )
        while state.stage < len(recipe.stages):
            epoch, stage = state.epoch + 1, state.stage
            fault = self._fault(assignment.name, epoch)
            if fault == "hangs":
                return
            point = self._curve(recipe, assignment.seed, epoch)
            whole = point.train_seconds
            seconds = min(whole, (ends[stage] - progress.by_steps) * recipe.total_epochs * whole)
            stage_ends_at = began + progress.seconds_until_stage_end(stage)
            seconds = min(seconds, max(stage_ends_at - now, _BATCH_FRACTION * whole))
            if limits.is_past_deadline(now + seconds):
                yield _Event(max(now, hard_limit) + self._machine.finish_seconds, ending=TrainingEnd("stopped"))
                return
            now += seconds
            if fault == "dies":
                yield _Event(now)
                return
            if fault is not None:
                yield _Event(now, ending=TrainingEnd("failed", None, fault, "simulated"))
                return
            now += point.evaluation_seconds
            progress.advance(seconds / whole / recipe.total_epochs)
            stage_progress = min(progress.stage_fraction(stage, now - began), 1.0)
            ended = stage_progress >= 1.0
            if ended:
                progress.end_stage(stage)
            state = _Checkpoint(epoch, stage + ended, progress.by_steps, max(state.best, point.objective))
            report = _report(point, epoch, stage, stage_progress, seconds + point.evaluation_seconds)
            yield _Event(now, report, state)
        yield _Event(
            now + self._machine.finish_seconds,
            ending=TrainingEnd("finished", state.best, secondary=self._secondary(recipe)),
        )


class _Session:
    """The event loop of one session."""

    def __init__(self, simulator: Simulator, scheduler: Scheduler, ledger: Ledger, slots: Sequence[str]) -> None:
        self.simulator, self.scheduler, self.ledger = simulator, scheduler, ledger
        self.slots = [_Slot(name) for name in slots]
        self.done: list[SimulatedTraining] = []
        self._queue: list[tuple[float, int, int, int, _Event]] = []
        self._order = itertools.count()

    def run(self, stop_at: float | None) -> bool:
        """Returns whether it was interrupted."""
        simulator, scheduler = self.simulator, self.scheduler
        self._fill()
        while any(slot.assignment is not None for slot in self.slots):
            tick = simulator._time + simulator._machine.tick_seconds
            soonest = min(tick, self._queue[0][0]) if self._queue else tick
            if stop_at is not None and soonest >= stop_at:
                simulator._time = stop_at
                self.ledger.heartbeat()
                self._abandon_all()
                return True
            simulator._time = soonest
            self.ledger.heartbeat()
            while self._queue and self._queue[0][0] <= soonest:
                _, _, index, generation, event = heapq.heappop(self._queue)
                if self.slots[index].generation == generation:
                    self._handle_event(index, event)
            for slot in self.slots:
                if slot.assignment is not None and not slot.hangs:
                    scheduler.on_heartbeat(slot.assignment.name)
            for name in scheduler.overdue():
                self._on_worker_death(
                    next(i for i, slot in enumerate(self.slots) if slot.assignment and slot.assignment.name == name)
                )
            if scheduler.is_past_hard_limit() or scheduler.abort_reason is not None:
                self._abandon_all()
                return False
            self._fill()
        return False

    def _fill(self) -> None:
        for index, slot in enumerate(self.slots):
            if slot.assignment is None:
                slot.assignment = self.scheduler.next_assignment(slot.name)
                if slot.assignment is not None:
                    slot.started_at, slot.epochs, slot.deaths = self.simulator._time, 0, 0
                    slot.first_epoch = self.simulator._disk.get(slot.assignment.name, _Checkpoint()).epoch + 1
                    self._begin(index)

    def _begin(self, index: int) -> None:
        simulator, slot = self.simulator, self.slots[index]
        assert slot.assignment is not None
        machine = simulator._machine
        hard_limit = simulator._time + self.scheduler.seconds_until_hard_limit(slot.assignment)
        start = machine.cold_start_seconds if slot.cold else machine.warm_start_seconds
        slot.cold = False
        slot.events = simulator._train(slot.assignment, slot.started_at, start, hard_limit)
        self._next_event(index)

    def _next_event(self, index: int) -> None:
        slot = self.slots[index]
        assert slot.events is not None
        event = next(slot.events, None)
        slot.hangs = event is None
        if event is not None:
            heapq.heappush(self._queue, (event.at, next(self._order), index, slot.generation, event))

    def _handle_event(self, index: int, event: _Event) -> None:
        slot = self.slots[index]
        assert slot.assignment is not None
        if event.ending is not None:
            self._end(index, event.ending)
        elif event.report is None:
            self._on_worker_death(index)
        else:
            assert event.progress is not None
            self.simulator._disk[slot.assignment.name] = event.progress
            slot.epochs += 1
            if self.scheduler.on_epoch(slot.assignment.name, event.report):
                self._next_event(index)
            else:
                self._end(index, TrainingEnd("stopped"))

    def _on_worker_death(self, index: int) -> None:
        slot = self.slots[index]
        assert slot.assignment is not None
        slot.generation += 1
        slot.deaths += 1
        slot.cold = True
        if slot.deaths <= self.simulator._machine.restarts:
            self._begin(index)
            return
        reason = "watchdog" if self.scheduler.was_overdue(slot.assignment.name) else "worker_died"
        self._end(index, TrainingEnd("failed", None, reason, "the worker process died more than once"))

    def _end(self, index: int, ending: TrainingEnd | None) -> None:
        slot = self.slots[index]
        assert slot.assignment is not None
        if ending is not None:
            self.scheduler.on_end(slot.assignment.name, ending)
        self.done.append(
            SimulatedTraining(
                slot.assignment, slot.started_at, self.simulator._time, slot.first_epoch, slot.epochs, ending
            )
        )
        slot.generation += 1
        slot.assignment = None

    def _abandon_all(self) -> None:
        for index, slot in enumerate(self.slots):
            if slot.assignment is not None:
                self._end(index, None)


def _report(point: CurvePoint, epoch: int, stage: int, stage_progress: float, seconds: float) -> EpochReport:
    return EpochReport(
        epoch=epoch,
        stage=stage,
        seconds=seconds,
        evaluation_seconds=point.evaluation_seconds,
        train_loss=1 - point.objective,
        train_accuracy=point.objective,
        learning_rate=0.0,
        loss=1 - point.objective,
        accuracy=point.objective,
        balanced_accuracy=point.objective,
        macro_f1=point.objective,
        shift=point.objective,
        objective=point.objective,
        data_wait_fraction=0.0,
        stage_progress=stage_progress,
    )
