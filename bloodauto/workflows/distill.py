"""One small network in place of a run's ensemble: it learns from the ensemble's answers, inside a budget."""

from __future__ import annotations

import itertools
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from bloodauto.config.budget import parse_budget
from bloodauto.config.recipe import Imbalance, Loss, Recipe, load_recipe
from bloodauto.config.settings import SearchSettings
from bloodauto.errors import BudgetError, RunError
from bloodauto.run.directory import RunDirectory
from bloodauto.run.files import read_json
from bloodauto.tuning.budget.ledger import Ledger

if TYPE_CHECKING:
    from bloodauto.data.dataset import CellDataset
    from bloodauto.data.split import Splits
    from bloodauto.ensemble.distilled import DistillationResult
    from bloodauto.ensemble.record import Ensemble, TrainedNetwork
    from bloodauto.evaluation.fold_data import FoldData
    from bloodauto.export.ensemble_export import Exported
    from bloodauto.training.distillation import Teacher

#: What ``--distill`` takes for the smallest network of the run itself.
SMALLEST = "smallest"
LEDGER_FILE = "distillation.jsonl"
_SLOT = "student"
#: Epochs of a student: so many that the budget ends it.
_EPOCH_FACTOR = 1000.0
#: On what is foreseen for after the training.
_MARGIN = 2.5
#: Of what is left, kept besides: a file that is not written in time is worth nothing.
_RESERVED_FRACTION = 0.2
#: What is given up at the end of the budget takes a moment to stop.
_SHUTDOWN_SECONDS = 1.0


def find_student(run: RunDirectory, name: str) -> Recipe:
    """The recipe of a student.

    Args:
        name: a recipe's file, the name of a shipped one, or ``smallest``: of the run's trainings that completed the one
            with the fewest parameters; of equals the best.

    Raises:
        RecipeError: no such recipe.
        RunError: the run has no training to take it from.
    """
    from bloodauto.config.recipe.experiments import find_recipe_file

    if name != SMALLEST:
        return load_recipe(find_recipe_file(name))
    ranked = []
    for folder in sorted((run.root / "trials").glob("*")):
        if (folder / "result.json").is_file() and (folder / "recipe.yaml").is_file():
            result = read_json(folder / "result.json")
            if result["finished"]:
                ranked.append((int(result["parameters"]), -float(result["objective"]), folder))
    if not ranked:
        raise RunError(f"{run.root}: --distill {SMALLEST}: expected a completed trial; name a recipe instead.")
    return load_recipe(min(ranked)[2] / "recipe.yaml")


def student_recipe(recipe: Recipe) -> Recipe:
    """The recipe for learning from a teacher: plain cross-entropy with its probabilities, every image as often as it comes."""
    from bloodauto.tuning.refits import with_extended_epochs

    plain = recipe.model_copy(update={"loss": Loss(), "imbalance": Imbalance(), "tta_transforms": ()})
    return with_extended_epochs(plain, _EPOCH_FACTOR)


def open_ledger(run: RunDirectory, settings: SearchSettings, output: Path, budget: str | None) -> Ledger:
    """The ledger that pays: the run's own, for what the search left; or with a budget a new one beside the exported files.

    Raises:
        BudgetError: a budget that cannot be read, or of devices that the run does not use.
    """
    if budget is None:
        path, device_seconds = run.ledger, settings.budget_device_seconds
    else:
        given = parse_budget(budget)
        if given.kind not in ("wall", settings.device):
            raise BudgetError(f"--budget {budget}: expected wall-clock or {settings.device} time, as the run has.")
        output.mkdir(parents=True, exist_ok=True)
        path, device_seconds = output / LEDGER_FILE, given.device_seconds(settings.devices_per_worker)
        # What an earlier export into this folder cost was paid for by its own budget.
        path.unlink(missing_ok=True)
    return Ledger(path, budget_device_seconds=device_seconds, now=time.monotonic, wall_clock=time.time)


def distil(
    run: RunDirectory,
    settings: SearchSettings,
    ensemble: Ensemble,
    output: Path,
    formats: Sequence[str],
    *,
    student: str,
    budget: str | None,
    dataset: CellDataset,
    splits: Splits,
) -> tuple[Exported, DistillationResult]:
    """Trains a student on the ensemble's answers for as long as the budget lasts, and exports it as a model of its own.

    The student learns from the same images as the run's trainings that left out fold 0, and is chosen, calibrated and compared
    with its teacher on the images and views that they were judged on. The held-out test stays closed for it.

    Raises:
        BudgetError: too little to train anything.
        UserError: as ``find_student`` and ``export_run``.
    """
    from bloodauto.models.backbones import check_recipe
    from bloodauto.tuning.budget.hard_limit import OutOfBudget, hard_time_limit

    recipe = find_student(run, student)
    check_recipe(recipe)
    ledger = open_ledger(run, settings, output, budget)
    ledger.reserve(_SLOT, settings.devices_per_worker, "distill")
    try:
        job = _Job(run, settings, ensemble, recipe, dataset, splits, ledger)
        with hard_time_limit(job.seconds_left()):
            return job.execute(output, formats)
    except OutOfBudget:
        raise _budget_too_small(ledger) from None
    finally:
        ledger.release(_SLOT)


def _budget_too_small(ledger: Ledger) -> BudgetError:
    return BudgetError(
        f"--distill: {ledger.spent_device_seconds:.0f} of {ledger.budget_device_seconds:.0f} device-seconds are spent; "
        "expected more to be left, for a student that is trained, judged and written. Give it some with --budget, for "
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
    ledger: Ledger

    def seconds_left(self) -> float:
        """Wall seconds."""
        return self.ledger.remaining_device_seconds / self.settings.devices_per_worker - _SHUTDOWN_SECONDS

    def execute(self, output: Path, formats: Sequence[str]) -> tuple[Exported, DistillationResult]:
        from bloodauto.ensemble.assemble import combine
        from bloodauto.ensemble.distilled import DistillationResult, compare, write_distilled
        from bloodauto.export.ensemble_export import build_ensemble, export_run
        from bloodauto.training.distillation import teacher_from_model

        seed, started = self.settings.seed, time.monotonic()
        teacher = teacher_from_model(
            build_ensemble(self.ensemble, self.dataset, self.splits, seed=seed, tta=False).plain
        )
        fold_data = self._fold_data()
        trained, epochs = self._train(teacher, fold_data, build_seconds=time.monotonic() - started)
        student = combine([trained], [1.0])
        distilled = DistillationResult(
            network=f"{self.recipe.backbone.label} at {self.recipe.input.size_px} px",
            recipe_id=student.members[0].recipe_id,
            parameters=student.members[0].parameters,
            teacher_parameters=sum(member.parameters for member in self.ensemble.members),
            epochs=epochs,
            budget_device_seconds=self.ledger.budget_device_seconds,
            spent_device_seconds=round(self.ledger.spent_device_seconds, 3),
            comparison=compare(student, self.ensemble),
        )
        exported = export_run(
            self.run,
            output,
            self.dataset,
            self.splits,
            formats,
            seed=seed,
            ensemble=student,
            distilled=distilled,
            seconds_left=self.seconds_left,
        )
        distilled = replace(distilled, parity_difference=exported.result.parity_difference)
        for folder in (output, self.run.root):
            write_distilled(folder, distilled)
        return exported, distilled

    def _fold_data(self) -> FoldData:
        """What the run's own trainings were judged on: the same images, and the same views with the same weights."""
        from bloodauto.config.space import covering_recipes
        from bloodauto.evaluation.fold_data import prepare_fold
        from bloodauto.training.suite_weights import shift_suite_for
        from bloodauto.workflows.prepare import load_checked_space, read_target_images, run_space_path

        seed = self.settings.seed
        space = load_checked_space(run_space_path(self.run))
        suite = shift_suite_for(
            itertools.chain(covering_recipes(space), covering_recipes(space, use_last_values=True)), seed=seed
        )
        target = read_target_images(self.settings.target_images, self.dataset, seed=seed)
        return prepare_fold(self.dataset, self.splits, suite, target=target)

    def _train(self, teacher: Teacher, fold_data: FoldData, *, build_seconds: float) -> tuple[TrainedNetwork, int]:
        """The training in its folder, and its epochs."""
        from bloodauto.ensemble.record import TrainedNetwork
        from bloodauto.models.backbones import find_weights
        from bloodauto.training.trainer import TrainOptions, train

        weights_dir = self.settings.weights_dir
        backbone = self.recipe.backbone
        weights = find_weights(backbone.name, backbone.weights, None if weights_dir is None else Path(weights_dir))
        # What comes after the training: its judgement, and a model written and read back, as the teacher was built.
        after = (
            _MARGIN * (self._predicted_evaluation_seconds(fold_data) + build_seconds)
            + _RESERVED_FRACTION * self.seconds_left()
        )
        limit = self.seconds_left() - after
        if limit <= 0:
            raise _budget_too_small(self.ledger)
        folder = self.run.root / "distilled"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        result = train(
            student_recipe(self.recipe),
            fold_data,
            seed=self.settings.seed,
            options=TrainOptions(
                objective=self.settings.objectives.primary,
                weights_file=weights,
                start_weights=self._member_weights(),
                time_limit_seconds=limit,
                train_until=time.monotonic() + limit,
                teacher=teacher,
            ),
            folder=folder,
            report=lambda epoch: self.ledger.heartbeat(),
            should_stop=lambda: self.seconds_left() < after / _MARGIN,
        )
        if not result.history:
            raise _budget_too_small(self.ledger)
        return TrainedNetwork("student", "distilled", -1, 0, folder), len(result.history)

    def _member_weights(self) -> Path | None:
        """Of a member with the student's own architecture, which has learnt from no other images."""
        for member in self.ensemble.members:
            for one in member.networks:
                known = load_recipe(one.folder / "recipe.yaml")
                same = (known.backbone, known.head, known.input) == (
                    self.recipe.backbone,
                    self.recipe.head,
                    self.recipe.input,
                )
                if same and one.fold == 0:
                    return one.folder / "best.npz"
        return None

    def _predicted_evaluation_seconds(self, fold_data: FoldData) -> float:
        from bloodauto.evaluation.fold_data import milliseconds_per_image
        from bloodauto.models.network import build_network

        shape = fold_data.images.shape
        network = build_network(
            self.recipe,
            num_classes=fold_data.num_classes,
            image_shape_px=(shape[1], shape[2]),
            weights_file=None,
            for_training=False,
        )
        images = len(fold_data.validation_index) + len(fold_data.shifted_images) + len(fold_data.target)
        return images * milliseconds_per_image(network, fold_data.shifted_images) / 1000
