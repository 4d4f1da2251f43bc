"""The ledger's files: one charge a line, and a heartbeat that notes what open slots have run up since."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field

from bloodauto.errors import RunError
from bloodauto.run.artifacts.base import Artifact
from bloodauto.run.files import append_line, write_text
from bloodauto.run.yaml_files import VERSION_KEY


class LedgerCharge(Artifact):
    """One line of ``ledger.jsonl``: device-seconds charged to a phase.

    Attributes:
        at_unix: when it was charged, Unix time.
        phase: what for, for example ``start-up``, ``trial 3`` or ``idle``.
        device_seconds: devices reserved x seconds reserved.
        spent_device_seconds: total of the ledger after this charge.
    """

    FILE = "ledger.jsonl"

    at_unix: float
    phase: str
    device_seconds: Annotated[float, Field(ge=0)]
    spent_device_seconds: Annotated[float, Field(ge=0)]

    def to_line(self) -> str:
        """The charge as one line of JSON without its end."""
        return json.dumps({VERSION_KEY: self.FORMAT_VERSION, **self.model_dump(mode="json")}, allow_nan=False)

    @classmethod
    def from_line(cls, line: str, source: str) -> Self:
        """Reads a line.

        Args:
            line: the text.
            source: ``file:line`` for error messages.

        Raises:
            RunError: it is no charge of this format version.
        """
        try:
            value = json.loads(line)
        except ValueError as error:
            raise RunError(f"{source}: expected a charge as JSON, got {line[:80]!r}. {cls.MEND}") from error
        return cls.from_plain(value, source=source, root=Path())


class LedgerHeartbeat(Artifact):
    """``ledger.heartbeat.json``: the running total of a ledger with open slots.

    Attributes:
        spent_device_seconds: charges and what the open slots have run up since.
        devices: devices reserved at present.
    """

    FILE = "ledger.heartbeat.json"
    MEND = "Delete it; up to a few seconds of the budget are then not accounted for."

    spent_device_seconds: Annotated[float, Field(ge=0)]
    devices: Annotated[float, Field(ge=0)]


@dataclass(frozen=True)
class LedgerFile:
    """Appends to a ledger's file and reads it.

    Attributes:
        path: the file.

    Example:
        >>> import tempfile
        >>> file = LedgerFile(Path(tempfile.mkdtemp()) / LedgerCharge.FILE)
        >>> file.append(LedgerCharge(at_unix=0.0, phase="idle", device_seconds=2.0, spent_device_seconds=2.0))
        >>> [charge.phase for charge in file.read()]
        ['idle']
    """

    path: Path

    @property
    def exists(self) -> bool:
        """Whether anything was charged."""
        return self.path.is_file()

    @property
    def heartbeat_path(self) -> Path:
        """The file of the ledger's ``LedgerHeartbeat``."""
        return self.path.with_suffix(".heartbeat.json")

    def append(self, charge: LedgerCharge) -> None:
        """Appends a charge and forces it to disk; creates the directory."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        append_line(self.path, charge.to_line())

    def read(self) -> tuple[LedgerCharge, ...]:
        """All charges; none where there is no file. A last line that a crash has torn is skipped.

        Raises:
            RunError: a line before the last is no charge.
        """
        lines = self._lines()
        charges = [self._charge(lines, index) for index in range(len(lines) - 1)]
        if lines and (last := self._last_charge(lines)) is not None:
            charges.append(last)
        return tuple(charges)

    def device_seconds_by_phase(self) -> dict[str, float]:
        """Sum of the charges of each phase; empty where there is no file.

        Raises:
            RunError: as ``read``.
        """
        by_phase: dict[str, float] = {}
        for charge in self.read():
            by_phase[charge.phase] = by_phase.get(charge.phase, 0.0) + charge.device_seconds
        return by_phase

    def repair_last_line(self) -> None:
        """Ends the last line, or removes it where it is torn: the next charge must not be appended to it."""
        lines = self._lines()
        if lines and not self.path.read_bytes().endswith(b"\n"):
            complete = lines if self._last_charge(lines) is not None else lines[:-1]
            write_text(self.path, "".join(f"{line}\n" for line in complete))

    def _lines(self) -> list[str]:
        if not self.exists:
            return []
        return self.path.read_text(encoding="utf-8", errors="replace").splitlines()

    def _charge(self, lines: list[str], index: int) -> LedgerCharge:
        return LedgerCharge.from_line(lines[index], f"{self.path}:{index + 1}")

    def _last_charge(self, lines: list[str]) -> LedgerCharge | None:
        try:
            return self._charge(lines, len(lines) - 1)
        except RunError:
            return None
