"""The policy's second executor: simulated workers on a simulated clock, thousands of trials in seconds."""

from __future__ import annotations

import heapq
import itertools
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Literal

from bloodauto.config.recipe import Recipe
from bloodauto.testing.learning_curves import CurvePoint
from bloodauto.training.checkpoint import EpochReport
from bloodauto.training.options import LEAST_SHARE_OF_LIMIT
from bloodauto.tuning.budget.ledger import Ledger
from bloodauto.tuning.messages import Assignment, Ending
from bloodauto.tuning.scheduler import Policy

#: (recipe, seed of the training, epoch from 1) -> what that epoch does.
Curve = Callable[[Recipe, int, int], CurvePoint]

#: A training that reached its time limit still ends the batch it is in.
_BATCH_SHARE = 0.01
_SLACK = 1e-6


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
class Machine:
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
    ending: Ending | None


@dataclass(frozen=True)
class SimulatedSession:
    """What one session did, its trainings in the order of their ends."""

    trainings: tuple[SimulatedTraining, ...]
    interrupted: bool


@dataclass(frozen=True)
class _Progress:
    """A training's checkpoint; ``by_steps``: share of all its steps, 0-1."""

    epoch: int = 0
    stage: int = 0
    by_steps: float = 0.0
    best: float = 0.0


@dataclass(frozen=True)
class _Event:
    """What a worker says, and when; a death is said by ``ending`` None and ``report`` None."""

    at: float
    report: EpochReport | None = None
    progress: _Progress | None = None
    ending: Ending | None = None


@dataclass
class _Lane:
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
    life: int = 0


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
        machine: Machine | None = None,
        others: Callable[[Recipe], tuple[float, ...]] = lambda recipe: (),
    ) -> None:
        self._curve, self._others = curve, others
        self._machine = Machine() if machine is None else machine
        self._time = 0.0
        self._disk: dict[str, _Progress] = {}
        self._faults_met: Counter[Fault] = Counter()

    def now(self) -> float:
        """The simulated time, in seconds: the clock of ledger and policy."""
        return self._time

    def wait(self, seconds: float) -> None:
        """Lets time pass in which nobody works."""
        self._time += seconds

    def run(
        self,
        policy: Policy,
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
            kill: at the interruption nothing is put in order any more; otherwise the lanes are released.
        """
        session = _Session(self, policy, ledger, [f"worker {index}" for index in range(workers)])
        for lane in session.lanes:
            ledger.reserve(lane.name, devices_per_worker, "start-up")
        interrupted = session.run(stop_at)
        if not interrupted:
            policy.close()
        if not (interrupted and kill):
            for lane in session.lanes:
                ledger.release(lane.name)
        return SimulatedSession(tuple(session.done), interrupted)

    def _fault(self, name: str, epoch: int) -> str | None:
        for fault in self._machine.faults:
            if (fault.training, fault.epoch) == (name, epoch) and self._faults_met[fault] < fault.times:
                self._faults_met[fault] += 1
                return fault.kind
        return None

    def _train(
        self, assignment: Assignment, assigned_at: float, start_seconds: float, deadline: float
    ) -> Generator[_Event, None, None]:
        """What the worker of one training says; as ``trial/train.py``, without patience."""
        recipe = assignment.recipe
        state = self._disk.get(assignment.name, _Progress())
        limit, before, began = assignment.time_limit_seconds, state.by_steps, self._time + start_seconds
        if limit is not None and assignment.train_within_seconds is not None:
            limit = max(assigned_at + assignment.train_within_seconds - began, LEAST_SHARE_OF_LIMIT * limit)
        now = began
        while state.stage < len(recipe.stages):
            epoch, stage = state.epoch + 1, state.stage
            fault = self._fault(assignment.name, epoch)
            if fault == "hangs":
                return
            point = self._curve(recipe, assignment.seed, epoch)
            stage_end = sum(one.epochs for one in recipe.stages[: stage + 1]) / recipe.total_epochs
            whole = point.train_seconds
            seconds = min(whole, (stage_end - state.by_steps) * recipe.total_epochs * whole)
            if limit is not None:
                reached = began + limit * (stage_end - before) / max(1 - before, _SLACK)
                seconds = min(seconds, max(reached - now, _BATCH_SHARE * whole))
            if now + seconds > deadline:
                yield _Event(max(now, deadline) + self._machine.finish_seconds, ending=Ending("stopped"))
                return
            now += seconds
            if fault == "dies":
                yield _Event(now)
                return
            if fault is not None:
                yield _Event(now, ending=Ending("failed", None, fault, "simulated"))
                return
            now += point.evaluation_seconds
            by_steps = state.by_steps + seconds / whole / recipe.total_epochs
            by_time = 0.0 if limit is None else before + (1 - before) * (now - began) / limit
            ended = max(by_steps, by_time) + _SLACK >= stage_end
            best = max(state.best, point.objective)
            state = _Progress(epoch, stage + ended, max(by_steps, stage_end) if ended else by_steps, best)
            stage_begin = sum(one.epochs for one in recipe.stages[:stage]) / recipe.total_epochs
            stage_progress = min((max(by_steps, by_time) - stage_begin) / (stage_end - stage_begin), 1.0)
            report = _report(point, epoch, stage, stage_progress, seconds + point.evaluation_seconds)
            yield _Event(now, report, state)
        yield _Event(
            now + self._machine.finish_seconds, ending=Ending("finished", state.best, others=self._others(recipe))
        )


class _Session:
    """The event loop of one session."""

    def __init__(self, simulator: Simulator, policy: Policy, ledger: Ledger, lanes: Sequence[str]) -> None:
        self.simulator, self.policy, self.ledger = simulator, policy, ledger
        self.lanes = [_Lane(name) for name in lanes]
        self.done: list[SimulatedTraining] = []
        self._queue: list[tuple[float, int, int, int, _Event]] = []
        self._order = itertools.count()

    def run(self, stop_at: float | None) -> bool:
        """Returns whether it was interrupted."""
        simulator, policy = self.simulator, self.policy
        self._fill()
        while any(lane.assignment is not None for lane in self.lanes):
            tick = simulator._time + simulator._machine.tick_seconds
            soonest = min(tick, self._queue[0][0]) if self._queue else tick
            if stop_at is not None and soonest >= stop_at:
                simulator._time = stop_at
                self.ledger.beat()
                self._leave_all()
                return True
            simulator._time = soonest
            self.ledger.beat()
            while self._queue and self._queue[0][0] <= soonest:
                _, _, index, life, event = heapq.heappop(self._queue)
                if self.lanes[index].life == life:
                    self._take(index, event)
            for lane in self.lanes:
                if lane.assignment is not None and not lane.hangs:
                    policy.on_sign_of_life(lane.assignment.name)
            for name in policy.overdue():
                self._die(
                    next(i for i, lane in enumerate(self.lanes) if lane.assignment and lane.assignment.name == name)
                )
            if policy.out_of_time() or policy.abort_reason is not None:
                self._leave_all()
                return False
            self._fill()
        return False

    def _fill(self) -> None:
        for index, lane in enumerate(self.lanes):
            if lane.assignment is None:
                lane.assignment = self.policy.next_assignment(lane.name)
                if lane.assignment is not None:
                    lane.started_at, lane.epochs, lane.deaths = self.simulator._time, 0, 0
                    lane.first_epoch = self.simulator._disk.get(lane.assignment.name, _Progress()).epoch + 1
                    self._begin(index)

    def _begin(self, index: int) -> None:
        simulator, lane = self.simulator, self.lanes[index]
        assert lane.assignment is not None
        machine = simulator._machine
        deadline = simulator._time + self.policy.seconds_until_deadline(lane.assignment)
        start = machine.cold_start_seconds if lane.cold else machine.warm_start_seconds
        lane.cold = False
        lane.events = simulator._train(lane.assignment, lane.started_at, start, deadline)
        self._next_event(index)

    def _next_event(self, index: int) -> None:
        lane = self.lanes[index]
        assert lane.events is not None
        event = next(lane.events, None)
        lane.hangs = event is None
        if event is not None:
            heapq.heappush(self._queue, (event.at, next(self._order), index, lane.life, event))

    def _take(self, index: int, event: _Event) -> None:
        lane = self.lanes[index]
        assert lane.assignment is not None
        if event.ending is not None:
            self._end(index, event.ending)
        elif event.report is None:
            self._die(index)
        else:
            assert event.progress is not None
            self.simulator._disk[lane.assignment.name] = event.progress
            lane.epochs += 1
            if self.policy.on_epoch(lane.assignment.name, event.report):
                self._next_event(index)
            else:
                self._end(index, Ending("stopped"))

    def _die(self, index: int) -> None:
        lane = self.lanes[index]
        assert lane.assignment is not None
        lane.life += 1
        lane.deaths += 1
        lane.cold = True
        if lane.deaths <= self.simulator._machine.restarts:
            self._begin(index)
            return
        reason = "watchdog" if self.policy.was_overdue(lane.assignment.name) else "worker_died"
        self._end(index, Ending("failed", None, reason, "the worker process died more than once"))

    def _end(self, index: int, ending: Ending | None) -> None:
        lane = self.lanes[index]
        assert lane.assignment is not None
        if ending is not None:
            self.policy.on_end(lane.assignment.name, ending)
        self.done.append(
            SimulatedTraining(
                lane.assignment, lane.started_at, self.simulator._time, lane.first_epoch, lane.epochs, ending
            )
        )
        lane.life += 1
        lane.assignment = None

    def _leave_all(self) -> None:
        for index, lane in enumerate(self.lanes):
            if lane.assignment is not None:
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
