"""The base classes of everything that a run writes to disk: a file is one class, written and read by that class alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    SerializationInfo,
    ValidationError,
    ValidationInfo,
)
from pydantic_core import ErrorDetails

from bloodauto.errors import RecipeError, RunError
from bloodauto.run.files import write_text
from bloodauto.run.yaml_files import VERSION_KEY, dump_yaml, read_yaml

_MAX_PROBLEMS = 5
_MAX_SHOWN_CHARACTERS = 80


class Record(BaseModel):
    """A frozen part of a file: no unknown fields, no silent conversion, no number that is not finite.

    Construction with a wrong value raises pydantic's ``ValidationError``: that is a mistake in our code. A file with a
    wrong value raises ``RunError``; see ``Artifact.read``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    def replace(self, **changes: Any) -> Self:
        """A validated copy with other values for some fields.

        Example:
            >>> class Size(Record):
            ...     height_px: int
            ...     width_px: int
            >>> Size(height_px=32, width_px=28).replace(width_px=32)
            Size(height_px=32, width_px=32)
        """
        return type(self)(**{**{name: getattr(self, name) for name in type(self).model_fields}, **changes})


class Artifact(Record):
    """A file of a run. JSON, or YAML where ``FILE`` ends in ``.yaml``; ``format_version`` is its first key.

    Attributes:
        FILE: the file's name in its directory.
        FORMAT_VERSION: increased whenever older files become unreadable. There are no migrations.
        MEND: the last sentence of an error about a damaged file: what to do.

    Example:
        >>> import pathlib, tempfile
        >>> class Size(Artifact):
        ...     FILE = "size.json"
        ...     height_px: int
        >>> path = pathlib.Path(tempfile.mkdtemp()) / Size.FILE
        >>> Size(height_px=32).write(path)
        >>> Size.read(path)
        Size(height_px=32)
    """

    FILE: ClassVar[str]
    FORMAT_VERSION: ClassVar[int] = 1
    MEND: ClassVar[str] = "Restore the file or start a new run."

    def write(self, path: Path) -> None:
        """Writes the file atomically.

        Args:
            path: the file; paths in it are stored relative to its directory.
        """
        write_text(path, self.to_text(path.parent))

    def to_text(self, root: Path) -> str:
        """The file's text; ``root`` is the directory to which paths in it are relative."""
        value = {VERSION_KEY: self.FORMAT_VERSION, **self.model_dump(mode="json", context={"root": root})}
        if self.FILE.endswith(".yaml"):
            return dump_yaml(value)
        return json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n"

    @classmethod
    def read(cls, path: Path) -> Self:
        """Reads the file.

        Raises:
            RunError: absent, truncated, of another format version, or with a field that is unknown, missing or wrong. The
                message names the file, the field, what was expected, what came, and how to mend it.
        """
        try:
            value = _plain_yaml(path) if cls.FILE.endswith(".yaml") else json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise RunError(
                f"{path}: expected a {cls.FILE} of bloodauto, could not read it ({error}). {cls.MEND}"
            ) from error
        return cls.from_plain(value, source=str(path), root=path.parent)

    @classmethod
    def from_plain(cls, value: Any, *, source: str, root: Path) -> Self:
        """Validates plain values as they stand in the file.

        Args:
            value: the whole file, its format version included.
            source: the file's name for error messages.
            root: the directory to which paths in it are relative.

        Raises:
            RunError: as ``read``.
        """
        fields = cls.checked_version(value, source)
        try:
            # Through JSON: its mode is the strict one in which a list is the way to write a tuple.
            return cls.model_validate_json(json.dumps(fields), context={"root": root})
        except ValidationError as error:
            raise RunError(f"{source}: {problems_text(error)} {cls.MEND}") from error

    @classmethod
    def checked_version(cls, value: Any, source: str) -> dict[str, Any]:
        """The fields of the file without its format version.

        Raises:
            RunError: the value is no mapping, or its format version is not this class's.
        """
        if not isinstance(value, Mapping):
            raise RunError(f"{source}: expected a mapping with {VERSION_KEY}, got {_shown(value)}. {cls.MEND}")
        version = value.get(VERSION_KEY)
        if type(version) is not int or version != cls.FORMAT_VERSION:
            received = "none" if version is None else _shown(version)
            raise RunError(
                f"{source}: {VERSION_KEY}: expected {cls.FORMAT_VERSION}, got {received}: the file was written by another "
                "version of bloodauto. Open it with that version, or start a new run."
            )
        return {name: field for name, field in value.items() if name != VERSION_KEY}


def _plain_yaml(path: Path) -> Any:
    try:
        return read_yaml(path).value
    except RecipeError as error:
        raise ValueError(str(error)) from error


def problems_text(error: ValidationError) -> str:
    """``field.path: expected ..., got ...`` for each problem, as one line that ends with a full stop."""
    details = error.errors()
    problems = [_problem_text(problem) for problem in details[:_MAX_PROBLEMS]]
    if len(details) > _MAX_PROBLEMS:
        problems.append(f"and {len(details) - _MAX_PROBLEMS} more")
    return "; ".join(problems) + "."


def _problem_text(problem: ErrorDetails) -> str:
    field = ".".join(str(part) for part in problem["loc"])
    prefix = f"{field}: " if field else ""
    if problem["type"] == "missing":
        return f"{prefix}expected a value, got none"
    if problem["type"] == "extra_forbidden":
        return f"{prefix}expected no such field, got {_shown(problem['input'])}"
    if problem["type"] == "value_error":
        # A check of ours, which says what it received.
        return f"{prefix}expected {problem['msg'].removeprefix('Value error, ')}"
    return f"{prefix}expected {problem['msg'].removeprefix('Input should be ')}, got {_shown(problem['input'])}"


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _MAX_SHOWN_CHARACTERS else text[: _MAX_SHOWN_CHARACTERS - 3] + "..."


def _resolve(path: Path, info: ValidationInfo) -> Path:
    return path if info.context is None else Path(info.context["root"]) / path


def _relative(path: Path, info: SerializationInfo) -> str:
    if info.context is None:
        return str(path)
    root = Path(info.context["root"])
    for candidate, parent in ((path, root), (path.resolve(), root.resolve())):
        if candidate.is_relative_to(parent):
            return candidate.relative_to(parent).as_posix()
    return str(path.resolve())


#: A path that is stored relative to the file's own directory, so that a run can be moved.
RelativePath = Annotated[Path, AfterValidator(_resolve), PlainSerializer(_relative, return_type=str)]
_ROUNDING = 1e-6
#: 0 to 1, give or take what rounding adds to a mean.
Fraction = Annotated[float, Field(ge=-_ROUNDING, le=1 + _ROUNDING)]
#: 0 or more.
Count = Annotated[int, Field(ge=0)]
#: Seconds, 0 or more.
Seconds = Annotated[float, Field(ge=0)]
