"""The simulated executor: simulated workers on a simulated clock run thousands of trials in seconds."""

from __future__ import annotations

import heapq
import itertools
import math
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from typing import Literal

from bloodauto.clock import SimulatedClock
from bloodauto.config.recipe import Recipe
from bloodauto.run.artifacts import EpochReport
from bloodauto.training.limits import ScheduleProgress, stage_ends
from bloodauto.tuning.budget.ledger import WorkerSlots
from bloodauto.tuning.constants import BUDGET_CONSTANTS, SCHEDULER_CONSTANTS
from bloodauto.tuning.messages import (
    Aborted,
    Assignment,
    Completed,
    Crashed,
    Interrupted,
    Stopped,
    TrainingEnd,
)
from bloodauto.tuning.scheduler import Scheduler

_MESSAGE = "simulated"
_UNTRAINED_OBJECTIVE = 0.1
_ROUNDING = 1e-6


@dataclass(frozen=True)
class CurvePoint:
    """One epoch of a simulated training.

    Attributes:
        objective: The primary objective after the epoch, 0-1.
        train_seconds: Seconds that a whole epoch's training takes on one worker.
        evaluation_seconds: Seconds of the evaluation after it.
    """

    objective: float
    train_seconds: float
    evaluation_seconds: float


#: What an epoch of a training is like: (recipe, seed of the training, epoch from 1).
Curve = Callable[[Recipe, int, int], CurvePoint]
SecondaryObjectives = Callable[[Recipe], tuple[float, ...]]


def no_secondary_objectives(recipe: Recipe) -> tuple[float, ...]:
    """The secondary objectives of a search that has none.

    Args:
        recipe: What was trained.
    """
    return ()


@dataclass(frozen=True)
class Fault:
    """Something that goes wrong in one training.

    Attributes:
        training: Name of the assignment.
        epoch: In which of its epochs, from 1.
        kind: ``crash``: it raises an error of its own. ``abort``: it raises one that every training would raise. ``dies``: its
            process is gone. ``hangs``: it is silent until its process is killed.
        times: How often; a restarted training meets the fault again until then.
    """

    training: str
    epoch: int
    kind: Literal["crash", "abort", "dies", "hangs"]
    times: int = 1


@dataclass(frozen=True)
class SlowPeriod:
    """A time in which the machine is slower, for example because of a neighbour.

    Attributes:
        begins_at: In simulated seconds.
        ends_at: Likewise.
        factor: How many times as long everything takes, 1 or more.
    """

    begins_at: float
    ends_at: float
    factor: float


@dataclass(frozen=True)
class SimulatedMachine:
    """What the simulated workers are like; all times are wall seconds.

    Attributes:
        cold_start_seconds: From an assignment to the first batch, in a new process.
        warm_start_seconds: From an assignment to the first batch, in a process that has trained before.
        finish_seconds: From the last epoch to the end.
        tick_seconds: How often heartbeats and limits are checked when nothing else happens.
        faults: What goes wrong.
        first_epoch_extra_seconds: What the first epoch of a training in a process takes besides its steps.
        slow_periods: When the machine is slower; one after another.
    """

    cold_start_seconds: float = 12.0
    warm_start_seconds: float = 3.0
    finish_seconds: float = 3.0
    tick_seconds: float = 10.0
    faults: tuple[Fault, ...] = ()
    first_epoch_extra_seconds: float = 0.0
    slow_periods: tuple[SlowPeriod, ...] = ()

    def wall_seconds(self, begins_at: float, quiet_seconds: float) -> float:
        """How long something takes.

        Args:
            begins_at: When it begins, in simulated seconds.
            quiet_seconds: How long it takes on the quiet machine.

        Example:
            >>> machine = SimulatedMachine(slow_periods=(SlowPeriod(10.0, 20.0, factor=2.0),))
            >>> machine.wall_seconds(0.0, 12.0), machine.wall_seconds(18.0, 3.0)
            (14.0, 4.0)
        """
        now, left = begins_at, quiet_seconds
        for until, factor in self._speeds(begins_at):
            if now + left * factor <= until:
                return now + left * factor - begins_at
            left -= (until - now) / factor
            now = until
        raise AssertionError("the last speed has no end")

    def quiet_seconds(self, begins_at: float, wall_seconds: float) -> float:
        """How long something would have taken on the quiet machine; the inverse of ``wall_seconds``.

        Args:
            begins_at: When it begins, in simulated seconds.
            wall_seconds: How long it takes.
        """
        now, end, done = begins_at, begins_at + wall_seconds, 0.0
        for until, factor in self._speeds(begins_at):
            done += (min(until, end) - now) / factor
            if end <= until:
                return done
            now = until
        raise AssertionError("the last speed has no end")

    def _speeds(self, moment: float) -> Iterator[tuple[float, float]]:
        """Until when the machine is how many times as slow, from a moment on."""
        for period in self.slow_periods:
            if period.ends_at > moment:
                if period.begins_at > moment:
                    yield period.begins_at, 1.0
                yield period.ends_at, period.factor
                moment = period.ends_at
        yield math.inf, 1.0


@dataclass(frozen=True)
class SimulatedTraining:
    """One training in one session.

    Attributes:
        assignment: What was assigned.
        started_at: When, in simulated seconds.
        ended_at: When it ended, or the session did.
        first_epoch: 1, or the first after a resume.
        epochs: How many epochs it did in this session.
        end: How it ended; None when the session ended first.
    """

    assignment: Assignment
    started_at: float
    ended_at: float
    first_epoch: int
    epochs: int
    end: TrainingEnd | None


@dataclass(frozen=True)
class SimulatedSession:
    """What one session did.

    Attributes:
        trainings: In the order of their ends.
        interrupted: Whether the session was interrupted.
    """

    trainings: tuple[SimulatedTraining, ...]
    interrupted: bool


@dataclass(frozen=True)
class _Checkpoint:
    """The state of a training on the simulated disk.

    ``progress`` is the fraction of all its steps, 0-1; ``trained`` its epochs, with those of the weights it started from.
    """

    epoch: int = 0
    stage: int = 0
    progress: float = 0.0
    best: float = 0.0
    trained: float = 0.0


@dataclass(frozen=True)
class _EpochEnd:
    """An epoch has ended, and its checkpoint is written."""

    at: float
    report: EpochReport
    checkpoint: _Checkpoint


@dataclass(frozen=True)
class _End:
    """The training has ended."""

    at: float
    end: TrainingEnd


@dataclass(frozen=True)
class _Death:
    """The process of the training is gone."""

    at: float


_Event = _EpochEnd | _End | _Death


@dataclass
class _Slot:
    """One simulated worker."""

    name: str
    cold: bool = True
    assignment: Assignment | None = None
    events: Generator[_Event, None, None] | None = None
    started_at: float = 0.0
    first_epoch: int = 1
    epochs: int = 0
    deaths: int = 0
    hangs: bool = False
    #: Counts processes; events of a process that was killed meanwhile are dropped.
    generation: int = 0


@dataclass
class _World:
    """What outlives a session: the machine, its disk, and the faults that have happened."""

    curve: Curve
    machine: SimulatedMachine
    secondary: SecondaryObjectives
    clock: SimulatedClock
    disk: dict[str, _Checkpoint] = field(default_factory=dict)
    faults_met: Counter[Fault] = field(default_factory=Counter)
    interrupt_requested: bool = False

    def checkpoint(self, name: str) -> _Checkpoint:
        return self.disk.get(name, _Checkpoint())

    def initial_checkpoint(self, assignment: Assignment) -> _Checkpoint:
        """Where a training begins: at its own checkpoint, or with the weights of its trial."""
        if assignment.name not in self.disk and assignment.weights_from_trial is not None:
            return _Checkpoint(trained=self.checkpoint(f"{assignment.weights_from_trial:05d}").trained)
        return self.checkpoint(assignment.name)

    def objective(self, recipe: Recipe, seed: int, trained: float) -> float:
        """The objective after so many epochs, between those of whole epochs in proportion."""
        nearest = round(trained)
        if nearest >= 1 and abs(trained - nearest) < _ROUNDING:
            return self.curve(recipe, seed, nearest).objective
        below = math.floor(trained)
        before = self.curve(recipe, seed, below).objective if below else _UNTRAINED_OBJECTIVE
        return before + (trained - below) * (self.curve(recipe, seed, below + 1).objective - before)

    def next_fault(self, name: str, epoch: int) -> str | None:
        for fault in self.machine.faults:
            if (fault.training, fault.epoch) == (name, epoch) and self.faults_met[fault] < fault.times:
                self.faults_met[fault] += 1
                return fault.kind
        return None


class SimulatedExecutor:
    """Runs trainings in simulated time; several sessions of one search can run on it, one after the other.

    Args:
        curve: What each epoch of each training is like.
        machine: What the workers are like.
        secondary: The secondary objectives that a recipe ends with.
        max_restarts: How often a training whose process died is restarted from its checkpoint.
        clock: The simulated time; None: a new clock.

    Attributes:
        clock: The simulated time; the ledger and the scheduler need the same clock.
    """

    def __init__(
        self,
        curve: Curve,
        machine: SimulatedMachine | None = None,
        *,
        secondary: SecondaryObjectives = no_secondary_objectives,
        max_restarts: int = SCHEDULER_CONSTANTS.max_restarts,
        clock: SimulatedClock | None = None,
    ) -> None:
        self.clock = SimulatedClock() if clock is None else clock
        machine = SimulatedMachine() if machine is None else machine
        self._world = _World(curve, machine, secondary, self.clock)
        self._max_restarts = max_restarts

    def execute(self, scheduler: Scheduler, slots: WorkerSlots) -> bool:
        """Runs one session; see ``Executor.execute``."""
        return not self.run(scheduler, slots).interrupted

    def interrupt(self) -> None:
        """Interrupts the session in progress, as a user does."""
        self._world.interrupt_requested = True

    def run(
        self, scheduler: Scheduler, slots: WorkerSlots, *, stop_at: float | None = None, kill: bool = False
    ) -> SimulatedSession:
        """Runs one session to its end, or to an interruption.

        Args:
            scheduler: Assigns trainings.
            slots: The reserved worker slots.
            stop_at: The simulated time of an interruption; None: there is none.
            kill: Whether the interruption leaves no time to hand the slots back.

        Returns:
            What the session did.
        """
        session = _Session(self._world, scheduler, slots, self._max_restarts)
        interrupted = session.run(stop_at)
        if not (interrupted and kill):
            slots.hand_back()
        return SimulatedSession(tuple(session.ended), interrupted)


class _Session:
    """The event loop of one session."""

    def __init__(self, world: _World, scheduler: Scheduler, slots: WorkerSlots, max_restarts: int) -> None:
        self._world, self._scheduler, self._ledger = world, scheduler, slots.ledger
        self._max_restarts = max_restarts
        self._slots = [_Slot(name) for name in slots.names]
        self._queue: list[tuple[float, int, int, int, _Event]] = []
        self._order = itertools.count()
        self.ended: list[SimulatedTraining] = []

    def run(self, stop_at: float | None) -> bool:
        """Returns whether the session was interrupted."""
        clock, scheduler = self._world.clock, self._scheduler
        self._world.interrupt_requested = False
        self._fill_slots()
        while any(slot.assignment is not None for slot in self._slots):
            tick = clock.now() + self._world.machine.tick_seconds
            soonest = min(tick, self._queue[0][0]) if self._queue else tick
            if stop_at is not None and soonest >= stop_at:
                clock.move_to(stop_at)
                self._ledger.heartbeat()
                self._abandon_all()
                return True
            clock.move_to(soonest)
            self._ledger.heartbeat()
            self._handle_events_until(soonest)
            if self._world.interrupt_requested:
                self._abandon_all()
                return True
            self._watch()
            if scheduler.is_past_training_limit() or scheduler.abort_reason is not None:
                self._abandon_all()
                return False
            self._fill_slots()
        return False

    def _handle_events_until(self, moment: float) -> None:
        while self._queue and self._queue[0][0] <= moment:
            _, _, index, generation, event = heapq.heappop(self._queue)
            if self._slots[index].generation == generation:
                self._handle_event(index, event)

    def _watch(self) -> None:
        """Passes heartbeats on, and kills what the scheduler calls overdue."""
        for slot in self._slots:
            if slot.assignment is not None and not slot.hangs:
                self._scheduler.on_heartbeat(slot.assignment.name)
        for name in self._scheduler.overdue():
            for index, slot in enumerate(self._slots):
                if slot.assignment is not None and slot.assignment.name == name:
                    self._on_worker_death(index)

    def _fill_slots(self) -> None:
        for index, slot in enumerate(self._slots):
            if slot.assignment is None:
                slot.assignment = self._scheduler.next_assignment(slot.name)
                if slot.assignment is not None:
                    slot.started_at, slot.epochs, slot.deaths = self._world.clock.now(), 0, 0
                    slot.first_epoch = self._world.checkpoint(slot.assignment.name).epoch + 1
                    self._start(index)

    def _start(self, index: int) -> None:
        """Starts the training of a slot, or restarts it from its checkpoint."""
        slot, machine = self._slots[index], self._world.machine
        assert slot.assignment is not None
        now = self._world.clock.now()
        start_seconds = machine.cold_start_seconds if slot.cold else machine.warm_start_seconds
        slot.cold = False
        slot.events = _simulate_training(self._world, slot.assignment, now + machine.wall_seconds(now, start_seconds))
        self._schedule_next_event(index)

    def _schedule_next_event(self, index: int) -> None:
        slot = self._slots[index]
        assert slot.events is not None
        event = next(slot.events, None)
        slot.hangs = event is None
        if event is not None:
            heapq.heappush(self._queue, (event.at, next(self._order), index, slot.generation, event))

    def _handle_event(self, index: int, event: _Event) -> None:
        slot = self._slots[index]
        assert slot.assignment is not None
        if isinstance(event, _End):
            self._end(index, event.end)
        elif isinstance(event, _Death):
            self._on_worker_death(index)
        else:
            self._world.disk[slot.assignment.name] = event.checkpoint
            slot.epochs += 1
            if self._scheduler.on_epoch(slot.assignment.name, event.report):
                self._schedule_next_event(index)
            else:
                self._end(index, Stopped())

    def _on_worker_death(self, index: int) -> None:
        slot = self._slots[index]
        assert slot.assignment is not None
        slot.generation += 1
        slot.deaths += 1
        slot.cold = True
        if slot.deaths <= self._max_restarts:
            self._start(index)
            return
        reason = "watchdog" if self._scheduler.was_overdue(slot.assignment.name) else "worker_died"
        self._end(index, Interrupted(reason, "the worker process died more than once", process_lost=True))

    def _end(self, index: int, end: TrainingEnd | None) -> None:
        slot = self._slots[index]
        assert slot.assignment is not None
        if end is not None:
            self._scheduler.on_end(slot.assignment.name, end)
        now = self._world.clock.now()
        self.ended.append(SimulatedTraining(slot.assignment, slot.started_at, now, slot.first_epoch, slot.epochs, end))
        slot.generation += 1
        slot.assignment = None

    def _abandon_all(self) -> None:
        for index, slot in enumerate(self._slots):
            if slot.assignment is not None:
                self._end(index, None)


def _simulate_training(world: _World, assignment: Assignment, first_batch_at: float) -> Generator[_Event, None, None]:
    """What happens to a training, with the trainer's own arithmetic of limits; patience is not simulated."""
    recipe, limits, machine = assignment.recipe, assignment.limits, world.machine
    state, ends = world.initial_checkpoint(assignment), stage_ends(recipe)
    progress = ScheduleProgress(
        ends, training_seconds=limits.training_seconds_from(first_batch_at), done=state.progress
    )
    now, extra = first_batch_at, machine.first_epoch_extra_seconds
    while state.stage < len(recipe.stages):
        epoch, stage = state.epoch + 1, state.stage
        fault = world.next_fault(assignment.name, epoch)
        if fault == "hangs":
            return
        point, begun_at = world.curve(recipe, assignment.seed, epoch), now
        now += machine.wall_seconds(now, extra)
        extra = 0.0
        seconds = _train_seconds(machine, now, progress, recipe, stage, point, elapsed=now - first_batch_at)
        if limits.is_past_deadline(now + seconds):
            ends_at = max(begun_at, limits.hard_deadline)
            yield _End(ends_at + machine.wall_seconds(ends_at, machine.finish_seconds), Stopped())
            return
        epoch_fraction = min(machine.quiet_seconds(now, seconds) / point.train_seconds, 1.0)
        now += seconds
        if fault is not None:
            yield _fault_event(fault, now)
            return
        evaluation_seconds = machine.wall_seconds(now, point.evaluation_seconds)
        now += evaluation_seconds
        progress.advance(epoch_fraction / recipe.total_epochs)
        trained = state.trained + epoch_fraction
        objective = world.objective(recipe, assignment.seed, trained)
        stage_progress = min(progress.stage_fraction(stage, now - first_batch_at), 1.0)
        stage_ended = stage_progress >= 1.0
        if stage_ended:
            progress.end_stage(stage)
        state = _Checkpoint(epoch, stage + stage_ended, progress.by_steps, max(state.best, objective), trained)
        report = epoch_report(
            CurvePoint(objective, point.train_seconds, evaluation_seconds),
            epoch=epoch,
            stage=stage,
            stage_progress=stage_progress,
            seconds=now - begun_at,
            epoch_fraction=epoch_fraction,
        )
        yield _EpochEnd(now, report, state)
    finish_seconds = machine.wall_seconds(now, machine.finish_seconds)
    yield _End(now + finish_seconds, Completed(state.best, world.secondary(recipe)))


def _train_seconds(
    machine: SimulatedMachine,
    now: float,
    progress: ScheduleProgress,
    recipe: Recipe,
    stage: int,
    point: CurvePoint,
    *,
    elapsed: float,
) -> float:
    """Seconds of an epoch's training: a whole epoch, or what is left of the stage by steps or by time."""
    epoch_seconds = machine.wall_seconds(now, point.train_seconds)
    epochs_left = (stage_ends(recipe)[stage] - progress.by_steps) * recipe.total_epochs
    left_by_steps = machine.wall_seconds(now, max(epochs_left, 0.0) * point.train_seconds)
    left_by_time = progress.seconds_until_stage_end(stage) - elapsed
    # A training that reached its time limit still ends its batch.
    return min(epoch_seconds, left_by_steps, max(left_by_time, BUDGET_CONSTANTS.batch_fraction * epoch_seconds))


def _fault_event(fault: str, at: float) -> _Event:
    if fault == "dies":
        return _Death(at)
    return _End(at, Aborted(_MESSAGE) if fault == "abort" else Crashed(_MESSAGE, traceback=_MESSAGE))


def epoch_report(
    point: CurvePoint, *, epoch: int, stage: int, stage_progress: float, seconds: float, epoch_fraction: float = 1.0
) -> EpochReport:
    """The report of an epoch that did not happen: every score is the objective.

    Args:
        point: Objective and seconds of the evaluation.
        epoch: From 1, over all stages.
        stage: Index of its stage.
        stage_progress: The fraction of the stage that is done, 0-1.
        seconds: Wall seconds of the epoch, evaluation included.
        epoch_fraction: Steps over those of a whole epoch, above 0 and up to 1.
    """
    objective = point.objective
    return EpochReport(
        epoch=epoch,
        stage=stage,
        seconds=seconds,
        evaluation_seconds=point.evaluation_seconds,
        train_loss=1 - objective,
        train_accuracy=objective,
        learning_rate=0.0,
        loss=1 - objective,
        accuracy=objective,
        balanced_accuracy=objective,
        macro_f1=objective,
        shift=objective,
        objective=objective,
        data_wait_fraction=0.0,
        stage_progress=stage_progress,
        epoch_fraction=max(epoch_fraction, _ROUNDING),
    )
