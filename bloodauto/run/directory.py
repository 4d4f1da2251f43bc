"""Where everything of one run lies on disk."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class RunDirectory:
    """Where everything of one run lies. Only names; reading and writing is left to whoever owns the file."""

    root: Path

    @property
    def settings(self) -> Path:
        return self.root / "settings.yaml"

    @property
    def fingerprint(self) -> Path:
        return self.root / "fingerprint.json"

    @property
    def cleaning(self) -> Path:
        return self.root / "cleaning.csv"

    @property
    def splits(self) -> Path:
        return self.root / "splits.json"

    @property
    def study(self) -> Path:
        return self.root / "study.db"

    def study_name(self, storage: str | None) -> str:
        """The study's name in the run's own file, or in a database by URL, where other runs may have theirs."""
        return "bloodauto" if storage is None else f"bloodauto {self.root.resolve()}"

    @property
    def ledger(self) -> Path:
        return self.root / "ledger.jsonl"

    @property
    def ensemble(self) -> Path:
        return self.root / "ensemble.json"

    @property
    def ood(self) -> Path:
        """What the exported rule for marking images does."""
        return self.root / "ood.json"

    @property
    def test_result(self) -> Path:
        return self.root / "test.json"

    @property
    def export(self) -> Path:
        return self.root / "export"

    @property
    def report(self) -> Path:
        return self.root / "report.html"

    @property
    def next_steps(self) -> Path:
        return self.root / "NEXT.txt"

    @property
    def lock(self) -> Path:
        return self.root / ".lock"

    def trial(self, number: int) -> Path:
        """The folder of one trial: recipe, history, checkpoint, validation probabilities, result."""
        return self.root / "trials" / f"{number:05d}"

    def refit(self, name: str) -> Path:
        """The folder of one refitted ensemble member."""
        return self.root / "refits" / name
