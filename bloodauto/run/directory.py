"""Typed access to everything in a run directory: no other module knows a file's name."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bloodauto.errors import RecipeError, RunError
from bloodauto.run.artifacts import (
    Adaptation,
    BudgetPlanFile,
    CleaningReport,
    ComparisonRecord,
    DataPictures,
    DistillationResult,
    Ensemble,
    Fingerprint,
    HeldOutTest,
    Labels,
    LedgerCharge,
    LedgerFile,
    LedgerHeartbeat,
    OodDetector,
    OodEvaluation,
    ParetoFront,
    ResultPictures,
    SiteScores,
    SplitsFile,
    StatedAccuracy,
    TargetEstimate,
    TimeAllocation,
)
from bloodauto.run.training_directory import ArtifactFile, F, TrainingDirectory
from bloodauto.run.yaml_files import VERSION_KEY, read_yaml

#: The format version of a run as a whole, which its settings carry.
RUN_FORMAT_VERSION = 2
#: Names of files whose classes or writers lie above ``run``.
SETTINGS_FILE, KERAS_MODEL_FILE, SUBMISSION_FILE = "settings.yaml", "model.keras", "submission.zip"
_TRIALS, _REFITS, _VARIANTS = "trials", "refits", "variants"


@dataclass(frozen=True)
class ExportDirectory:
    """The files of an export.

    Attributes:
        root: the directory.
    """

    root: Path

    @property
    def labels(self) -> ArtifactFile[Labels]:
        """What the model's outputs mean; the last file that an export writes."""
        return ArtifactFile(self.root / Labels.FILE, Labels)

    @property
    def ood_detector(self) -> ArtifactFile[OodDetector]:
        """The detector of out-of-distribution images, if there is one."""
        return ArtifactFile(self.root / OodDetector.FILE, OodDetector)

    @property
    def stated_accuracy(self) -> ArtifactFile[StatedAccuracy]:
        """The accuracy that the model card states, if it states any."""
        return ArtifactFile(self.root / StatedAccuracy.FILE, StatedAccuracy)

    @property
    def adaptation(self) -> ArtifactFile[Adaptation]:
        """How the model was adapted to a site, if it was."""
        return ArtifactFile(self.root / Adaptation.FILE, Adaptation)

    @property
    def distilled(self) -> ArtifactFile[DistillationResult]:
        """How the model was distilled, if it was."""
        return ArtifactFile(self.root / DistillationResult.FILE, DistillationResult)

    @property
    def distillation_ledger(self) -> LedgerFile:
        """All charges of a distillation that has a budget of its own."""
        return LedgerFile(self.root / "distillation.jsonl")

    @property
    def keras_model(self) -> Path:
        """The model in Keras' format."""
        return self.root / KERAS_MODEL_FILE

    @property
    def submission(self) -> Path:
        """The competition's archive."""
        return self.root / SUBMISSION_FILE

    @property
    def model_card(self) -> Path:
        """What to know of the model, Markdown."""
        return self.root / "README.md"


@dataclass(frozen=True)
class RunDirectory:
    """The files of a run: of a search, a comparison, or a single training.

    Attributes:
        root: the directory.

    Example:
        >>> run = RunDirectory(Path("runs/first"))
        >>> run.trial(3).result.path.as_posix()
        'runs/first/trials/00003/result.json'
        >>> run.ensemble.exists
        False
    """

    root: Path

    def file(self, schema: type[F]) -> ArtifactFile[F]:
        """The run's file of a class; for classes that ``run`` cannot know, such as ``SearchSettings``."""
        return ArtifactFile(self.root / schema.FILE, schema)

    # -- what was asked for --------------------------------------------------------------------------------------------

    @property
    def settings(self) -> Path:
        """The settings; read them with ``config.settings.read_settings``."""
        return self.root / SETTINGS_FILE

    @property
    def space(self) -> Path:
        """The run's own copy of its search space, so that a resume does not depend on a file that may change."""
        return self.root / "space.yaml"

    @property
    def comparison(self) -> ArtifactFile[ComparisonRecord]:
        """What is compared."""
        return self.file(ComparisonRecord)

    @property
    def time_allocation(self) -> ArtifactFile[TimeAllocation]:
        """How a comparison divides its budget."""
        return self.file(TimeAllocation)

    # -- data ----------------------------------------------------------------------------------------------------------

    @property
    def fingerprint(self) -> ArtifactFile[Fingerprint]:
        """Which images it was started with."""
        return self.file(Fingerprint)

    @property
    def cleaning(self) -> ArtifactFile[CleaningReport]:
        """What cleaning found."""
        return self.file(CleaningReport)

    @property
    def splits(self) -> ArtifactFile[SplitsFile]:
        """Folds and held-out test set."""
        return self.file(SplitsFile)

    @property
    def data_pictures(self) -> ArtifactFile[DataPictures]:
        """Pictures of some images."""
        return self.file(DataPictures)

    # -- search --------------------------------------------------------------------------------------------------------

    @property
    def study(self) -> Path:
        """Optuna's SQLite database, where the settings name no other storage."""
        return self.root / "study.db"

    def study_name(self, storage: str | None) -> str:
        """The study's name in the run's own database, or in one by URL, which other runs may share."""
        return "bloodauto" if storage is None else f"bloodauto {self.root.resolve()}"

    @property
    def ledger(self) -> LedgerFile:
        """All charges of a search, one ``LedgerCharge`` a line."""
        return LedgerFile(self.root / LedgerCharge.FILE)

    @property
    def ledger_heartbeat(self) -> ArtifactFile[LedgerHeartbeat]:
        """What the open slots of a search have run up since the last charge."""
        return ArtifactFile(self.ledger.heartbeat_path, LedgerHeartbeat)

    @property
    def budget_plan(self) -> ArtifactFile[BudgetPlanFile]:
        """What a search does with the rest of its budget."""
        return self.file(BudgetPlanFile)

    @property
    def pareto_front(self) -> ArtifactFile[ParetoFront]:
        """The trials that no other dominates, where there are several objectives."""
        return self.file(ParetoFront)

    def trial(self, number: int) -> TrainingDirectory:
        """The directory of a trial."""
        return TrainingDirectory(self.root / _TRIALS / f"{number:05d}")

    def refit(self, name: str) -> TrainingDirectory:
        """The directory of a refit."""
        return TrainingDirectory(self.root / _REFITS / name)

    def variant(self, name: str) -> TrainingDirectory:
        """The directory of a comparison's variant."""
        return TrainingDirectory(self.root / _VARIANTS / name)

    @property
    def single_training(self) -> TrainingDirectory:
        """The files of ``bloodauto train``, which trains in the run directory itself."""
        return TrainingDirectory(self.root)

    def trials(self) -> Iterator[TrainingDirectory]:
        """The directories of all trials, by number."""
        return _training_directories(self.root / _TRIALS)

    def refits(self) -> Iterator[TrainingDirectory]:
        """The directories of all refits, by name."""
        return _training_directories(self.root / _REFITS)

    # -- results -------------------------------------------------------------------------------------------------------

    @property
    def ensemble(self) -> ArtifactFile[Ensemble]:
        """The chosen ensemble."""
        return self.file(Ensemble)

    @property
    def site_scores(self) -> ArtifactFile[SiteScores]:
        """The ensemble at each site that was left out of training."""
        return self.file(SiteScores)

    @property
    def target_estimate(self) -> ArtifactFile[TargetEstimate]:
        """What unlabelled target images say of the ensemble."""
        return self.file(TargetEstimate)

    @property
    def held_out_test(self) -> ArtifactFile[HeldOutTest]:
        """The ensemble on the held-out test set."""
        return self.file(HeldOutTest)

    @property
    def ood_evaluation(self) -> ArtifactFile[OodEvaluation]:
        """What the exported OOD detector does."""
        return self.file(OodEvaluation)

    @property
    def result_pictures(self) -> ArtifactFile[ResultPictures]:
        """Pictures of what the ensemble predicts, and of shifted and augmented images."""
        return self.file(ResultPictures)

    @property
    def distilled(self) -> ArtifactFile[DistillationResult]:
        """The last network that was distilled from the ensemble."""
        return self.file(DistillationResult)

    @property
    def export(self) -> ExportDirectory:
        """What the search exported."""
        return ExportDirectory(self.root / "export")

    # -- for people ----------------------------------------------------------------------------------------------------

    @property
    def report(self) -> Path:
        """The report, HTML."""
        return self.root / "report.html"

    @property
    def next_steps(self) -> Path:
        """Commands to go on with, text."""
        return self.root / "NEXT.txt"

    @property
    def comparison_table(self) -> Path:
        """A comparison's table, Markdown."""
        return self.root / "table.md"

    @property
    def comparison_table_csv(self) -> Path:
        """A comparison's table, CSV."""
        return self.root / "table.csv"

    @property
    def log(self) -> Path:
        """The log, text."""
        return self.root / "log.txt"

    @property
    def lock(self) -> Path:
        """Locked by the process that works in the run."""
        return self.root / ".lock"

    def check_format(self) -> None:
        """Checks that this version of bloodauto can read the run. Does nothing where there are no settings yet.

        Raises:
            RunError: the settings carry no format version, or another one.
        """
        if not self.settings.is_file():
            return
        try:
            value = read_yaml(self.settings).value
        except RecipeError:
            # Damaged settings are no old settings: whoever reads them says what is wrong.
            return
        version = value.get(VERSION_KEY) if isinstance(value, dict) else None
        if version != RUN_FORMAT_VERSION:
            received = "none" if version is None else repr(version)
            raise RunError(
                f"{self.settings}: {VERSION_KEY}: expected {RUN_FORMAT_VERSION}, got {received}: the run was made by another "
                "version of bloodauto, and runs are not converted. Open it with that version, or start a new run."
            )


def _training_directories(parent: Path) -> Iterator[TrainingDirectory]:
    for folder in sorted(parent.iterdir()) if parent.is_dir() else []:
        if folder.is_dir():
            yield TrainingDirectory(folder)
