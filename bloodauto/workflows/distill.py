"""One small network in place of a run's ensemble: it is trained on the ensemble's predictions, inside a budget."""

from __future__ import annotations

import contextlib
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from bloodauto.clock import SYSTEM_CLOCK
from bloodauto.config.budget import parse_budget
from bloodauto.config.recipe import Imbalance, Loss, Recipe, load_recipe
from bloodauto.config.settings import SearchSettings
from bloodauto.config.shipped import find_recipe_file
from bloodauto.data.dataset import CellDataset
from bloodauto.data.split import Splits
from bloodauto.ensemble.assemble import combine
from bloodauto.ensemble.evaluation import compare_student
from bloodauto.errors import BudgetError, RunError
from bloodauto.evaluation.fold_data import FoldData, prepare_fold
from bloodauto.evaluation.latency import batch_latency_ms
from bloodauto.export.built_ensemble import build_ensemble
from bloodauto.export.ensemble_export import Exported, ExportSettings, export_run
from bloodauto.models.backbone_networks import find_weights
from bloodauto.models.backbones import check_recipe
from bloodauto.models.device import Device
from bloodauto.models.network import build_network
from bloodauto.run.artifacts import DistillationResult, Ensemble, TrainedNetwork
from bloodauto.run.directory import ExportDirectory, RunDirectory
from bloodauto.training.distillation import Teacher, teacher_from_model
from bloodauto.training.limits import TimeLimits
from bloodauto.training.session import TrainingSession
from bloodauto.training.trainer import TrainOptions
from bloodauto.tuning.budget.ledger import BudgetAccount, Ledger
from bloodauto.tuning.budget.time_limits import OutOfBudget, hard_time_limit
from bloodauto.tuning.refits import with_extended_epochs
from bloodauto.workflows.datasets import read_target_images
from bloodauto.workflows.planning import load_checked_space, run_space_path, suite_of_space

#: The ``student`` that stands for the smallest network of the run itself.
SMALLEST = "smallest"
#: Multiplies the epochs of a student's recipe, so that the budget ends its training.
_EPOCH_FACTOR = 1000.0
#: Factor on the predicted seconds of everything after the training.
_MARGIN = 2.5
#: Fraction of the remaining budget that is kept besides: a file that is not written in time is worth nothing.
_RESERVED_FRACTION = 0.2
#: An interrupted step takes a moment to stop.
_SHUTDOWN_SECONDS = 1.0
#: The fold that the student is not trained on.
_FOLD = 0


@dataclass(frozen=True)
class Distillation:
    """What a distillation is to do.

    Attributes:
        student: A recipe's file, the name of a shipped one, or ``smallest``.
        budget: What it may cost, such as ``5cpu-min``; None: what the search left of its own budget.
        output: Folder of the exported files.
        formats: Formats to export.
    """

    student: str
    budget: str | None
    output: Path
    formats: tuple[str, ...]


def find_student(run: RunDirectory, name: str) -> Recipe:
    """The recipe of a student.

    Args:
        run: The run whose ensemble is the teacher.
        name: A recipe's file, the name of a shipped one, or ``smallest``: the recipe of the completed training with the
            fewest parameters; of equals, of the one with the best objective.

    Returns:
        The recipe as it is declared.

    Raises:
        RecipeError: No such recipe.
        RunError: The run has no completed training to take it from.
    """
    if name != SMALLEST:
        return load_recipe(find_recipe_file(name))
    ranked = []
    for trial in run.trials():
        if trial.recipe.is_file() and (result := trial.result.read_if_exists()) is not None and result.finished:
            ranked.append((result.parameters, -result.objective, trial.recipe))
    if not ranked:
        raise RunError(f"{run.root}: --distill {SMALLEST}: expected a completed trial; name a recipe instead.")
    return load_recipe(min(ranked)[2])


def student_recipe(recipe: Recipe) -> Recipe:
    """The recipe with what distillation needs: cross-entropy with the teacher's probabilities and no class balancing.

    Its epochs are so many that the budget ends the training.
    """
    plain = recipe.model_copy(update={"loss": Loss(), "imbalance": Imbalance(), "tta_transforms": ()})
    return with_extended_epochs(plain, _EPOCH_FACTOR)


def open_account(
    run: RunDirectory, settings: SearchSettings, request: Distillation
) -> contextlib.AbstractContextManager[BudgetAccount]:
    """The account that pays: the run's own for what the search left, or a new one beside the exported files.

    Args:
        run: The run whose ensemble is the teacher.
        settings: Its settings.
        request: Names the budget and the output folder.

    Returns:
        The account for a block.

    Raises:
        BudgetError: A budget that cannot be read, or that counts devices which the run does not use.
    """
    if request.budget is None:
        file, device_seconds = run.ledger, settings.budget_device_seconds
    else:
        budget = parse_budget(request.budget)
        if budget.kind not in ("wall", settings.device):
            raise BudgetError(
                f"--budget {request.budget}: expected wall-clock or {settings.device} time, as the run has."
            )
        request.output.mkdir(parents=True, exist_ok=True)
        file = ExportDirectory(request.output).distillation_ledger
        device_seconds = budget.device_seconds(settings.devices_per_worker)
        # An earlier export into this folder was paid by its own budget.
        file.path.unlink(missing_ok=True)
    return BudgetAccount.open(file, budget_device_seconds=device_seconds, devices_per_slot=settings.devices_per_worker)


def distil(
    run: RunDirectory,
    settings: SearchSettings,
    ensemble: Ensemble,
    request: Distillation,
    *,
    dataset: CellDataset,
    splits: Splits,
) -> tuple[Exported, DistillationResult]:
    """Trains a student on the ensemble's predictions until the budget ends, and exports it as a model of its own.

    The student is trained on the same images as the run's trainings without fold 0. It is selected, calibrated and compared
    with its teacher on the images of fold 0 and their shifted versions. The held-out test set is not used.

    Args:
        run: The run whose ensemble is the teacher.
        settings: Its settings.
        ensemble: The teacher.
        request: Student, budget and output.
        dataset: The run's images.
        splits: The run's splits.

    Returns:
        What was written, and how the student compares with the ensemble.

    Raises:
        BudgetError: Too little to train, evaluate and write the student.
        UserError: As ``find_student`` and ``export_run``.
    """
    recipe = find_student(run, request.student)
    check_recipe(recipe)
    with open_account(run, settings, request) as account, account.phase("distill"):
        job = _Job(run, settings, ensemble, recipe, dataset, splits, account)
        try:
            with hard_time_limit(job.seconds_left()):
                return job.execute(request)
        except OutOfBudget as error:
            raise _budget_too_small(account.ledger) from error


def _budget_too_small(ledger: Ledger) -> BudgetError:
    return BudgetError(
        f"--distill: {ledger.spent_device_seconds:.0f} of {ledger.budget_device_seconds:.0f} device-seconds are spent; "
        "expected more to be left, for a student that is trained, evaluated and written. Give it some with --budget, for "
        "example 5cpu-min."
    )


@dataclass(frozen=True)
class _Job:
    """One distillation under way."""

    run: RunDirectory
    settings: SearchSettings
    ensemble: Ensemble
    recipe: Recipe
    dataset: CellDataset
    splits: Splits
    account: BudgetAccount

    def seconds_left(self) -> float:
        """Wall seconds."""
        return self.account.seconds_left - _SHUTDOWN_SECONDS

    def execute(self, request: Distillation) -> tuple[Exported, DistillationResult]:
        """Trains, compares and exports the student."""
        seed, started = self.settings.seed, time.monotonic()
        teacher = teacher_from_model(
            build_ensemble(self.ensemble, self.dataset, self.splits, seed=seed, tta=False).model_without_tta
        )
        fold_data = self._fold_data()
        network, epochs = self._train(teacher, fold_data, build_seconds=time.monotonic() - started)
        student = combine([network], [1.0])
        distilled = DistillationResult(
            network=f"{self.recipe.backbone.label} at {self.recipe.input.size_px} px",
            recipe_id=student.members[0].recipe_id,
            parameters=student.members[0].parameters,
            teacher_parameters=sum(member.parameters for member in self.ensemble.members),
            epochs=epochs,
            budget_device_seconds=self.account.ledger.budget_device_seconds,
            spent_device_seconds=round(self.account.ledger.spent_device_seconds, 3),
            comparison=compare_student(student, self.ensemble),
        )
        exported = export_run(
            self.run,
            request.output,
            self.dataset,
            self.splits,
            ExportSettings(student, request.formats, seed=seed, distilled=distilled),
            seconds_left=self.seconds_left,
        )
        distilled = distilled.replace(parity_difference=exported.result.parity_difference)
        for file in (ExportDirectory(request.output).distilled, self.run.distilled):
            file.write(distilled)
        return exported, distilled

    def _fold_data(self) -> FoldData:
        """The images that the run's own trainings were evaluated on, with the same corruptions and weights."""
        seed = self.settings.seed
        suite = suite_of_space(load_checked_space(run_space_path(self.run)), seed=seed)
        target = read_target_images(self.settings.target_images, self.dataset, seed=seed)
        return prepare_fold(self.dataset, self.splits, suite, target=target)

    def _train(self, teacher: Teacher, fold_data: FoldData, *, build_seconds: float) -> tuple[TrainedNetwork, int]:
        """The trained network in its folder, and its epochs."""
        weights_dir = self.settings.weights_dir
        backbone = self.recipe.backbone
        weights = find_weights(backbone.name, backbone.weights, None if weights_dir is None else Path(weights_dir))
        # After the training come its evaluation, and a model that is written and read back, as the teacher was built.
        after = (
            _MARGIN * (self._predicted_evaluation_seconds(fold_data) + build_seconds)
            + _RESERVED_FRACTION * self.seconds_left()
        )
        limit = self.seconds_left() - after
        if limit <= 0:
            raise _budget_too_small(self.account.ledger)
        folder = self.run.root / "distilled"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        options = TrainOptions(
            objective=self.settings.objectives.primary,
            weights_file=weights,
            start_weights=self._member_weights(),
            limits=TimeLimits(training_seconds=limit, schedule_until=SYSTEM_CLOCK.now() + limit),
            teacher=teacher,
        )
        device = Device(max(int(self.settings.cpus_per_trial), 1), self.settings.gpus_per_trial)
        with TrainingSession.open(fold_data, device=device) as session:
            result = session.train(
                student_recipe(self.recipe),
                folder,
                seed=self.settings.seed,
                options=options,
                report=lambda _: self.account.ledger.heartbeat(),
                should_stop=lambda: self.seconds_left() < after / _MARGIN,
            )
        if not result.history:
            raise _budget_too_small(self.account.ledger)
        network = TrainedNetwork(name="student", kind="distilled", trial=None, fold=_FOLD, folder=folder)
        return network, len(result.history)

    def _member_weights(self) -> Path | None:
        """Weights of a member with the student's architecture that was trained on the same images; None without one."""
        for member in self.ensemble.members:
            for network in member.networks:
                recipe = load_recipe(network.files.recipe)
                same_architecture = (recipe.backbone, recipe.head, recipe.input) == (
                    self.recipe.backbone,
                    self.recipe.head,
                    self.recipe.input,
                )
                if same_architecture and network.fold == _FOLD:
                    return network.files.weights.path
        return None

    def _predicted_evaluation_seconds(self, fold_data: FoldData) -> float:
        network = build_network(
            self.recipe,
            num_classes=fold_data.num_classes,
            image_shape_px=fold_data.image_shape_px,
            weights_file=None,
            for_training=False,
        )
        latency_ms = batch_latency_ms(network, fold_data.shifted_images, clock=SYSTEM_CLOCK)
        return fold_data.num_evaluated_images * latency_ms / 1000
