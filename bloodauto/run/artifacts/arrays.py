"""Files of arrays: ``.npz`` archives of plain arrays, with every other field as JSON beside them. Nothing is unpickled."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import GetCoreSchemaHandler, ValidationError, model_validator
from pydantic_core import CoreSchema, core_schema

from bloodauto.errors import RunError
from bloodauto.run.artifacts.base import Artifact, Record, problems_text
from bloodauto.run.files import ARRAY_READ_ERRORS, atomic_path
from bloodauto.run.yaml_files import VERSION_KEY

#: The array of the archive that holds all fields that are no arrays, as JSON text.
_FIELDS_KEY = "fields"
_ARRAY_MARK = "$array"


@dataclass(frozen=True)
class ArrayOf:
    """Marks a field as an array of a dtype and, if ``dims`` is given, a number of dimensions.

    Attributes:
        dtype: a numpy scalar type; abstract ones such as ``np.integer`` allow every dtype below them.
        dims: the names of the dimensions, separated by spaces, for example ``"n classes"``. Fields of one record that share
            a name must agree in that length. None: any shape.
    """

    dtype: type[np.generic]
    dims: str | None = None

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """An array passes unchanged; nothing is converted into one."""
        return core_schema.no_info_plain_validator_function(self._checked)

    def _checked(self, value: Any) -> NDArray[Any]:
        if not isinstance(value, np.ndarray):
            # Pydantic collects ValueErrors alone.
            raise ValueError(f"an array of {self.dtype.__name__}, not of {type(value).__name__}")  # noqa: TRY004
        array: NDArray[Any] = value
        if array.dtype == np.object_ or not np.issubdtype(array.dtype, self.dtype):
            raise ValueError(f"an array of {self.dtype.__name__}, not of {array.dtype}")
        if self.dims is not None and array.ndim != len(self.dims.split()):
            raise ValueError(f"an array of shape ({', '.join(self.dims.split())}), not {array.shape}")
        return array


class ArrayRecord(Record):
    """A record with arrays among its fields. Dimensions of one name have one length."""

    @model_validator(mode="after")
    def _check_dimensions(self) -> Self:
        lengths: dict[str, tuple[str, int]] = {}
        for name, field in type(self).model_fields.items():
            for mark in field.metadata:
                if not isinstance(mark, ArrayOf) or mark.dims is None:
                    continue
                for dimension, length in zip(mark.dims.split(), getattr(self, name).shape, strict=True):
                    first, expected = lengths.setdefault(dimension, (name, length))
                    if length != expected:
                        raise ValueError(f"{name} to have {dimension} = {expected} as {first} has, not {length}")
        return self


class ArrayArtifact(ArrayRecord, Artifact):
    """A file of arrays and other fields.

    Attributes:
        COMPRESSED: compress the archive; costs time for every write.
    """

    COMPRESSED: ClassVar[bool] = True

    def write(self, path: Path) -> None:
        """Writes the archive atomically."""
        arrays: dict[str, NDArray[Any]] = {}
        fields = {VERSION_KEY: self.FORMAT_VERSION, **_without_arrays(self, "", arrays)}
        arrays[_FIELDS_KEY] = np.asarray(json.dumps(fields, allow_nan=False))
        save = np.savez_compressed if self.COMPRESSED else np.savez
        with atomic_path(path) as temporary, temporary.open("wb") as stream:
            save(stream, allow_pickle=False, **arrays)

    @classmethod
    def read(cls, path: Path) -> Self:
        """Reads the archive.

        Raises:
            RunError: absent, truncated, no archive of plain arrays, of another format version, or with a field that is
                unknown, missing or wrong.
        """
        try:
            with np.load(path, allow_pickle=False) as archive:
                value = json.loads(str(archive[_FIELDS_KEY])) if _FIELDS_KEY in archive.files else {}
                fields = cls.checked_version(value, str(path))
                return cls.model_validate(_with_arrays(fields, archive))
        except ValidationError as error:
            raise RunError(f"{path}: {problems_text(error)} {cls.MEND}") from error
        except ARRAY_READ_ERRORS as error:
            raise RunError(
                f"{path}: expected a {cls.FILE} of bloodauto with plain arrays, could not read it ({error}). {cls.MEND}"
            ) from error


def _without_arrays(value: Any, location: str, arrays: dict[str, NDArray[Any]]) -> Any:
    """Plain values in which every array is replaced by its name in ``arrays``."""
    if isinstance(value, np.ndarray):
        arrays[location] = value
        return {_ARRAY_MARK: location}
    prefix = f"{location}." if location else ""
    if isinstance(value, Record):
        names = type(value).model_fields
        return {name: _without_arrays(getattr(value, name), f"{prefix}{name}", arrays) for name in names}
    if isinstance(value, tuple):
        return [_without_arrays(item, f"{prefix}{index}", arrays) for index, item in enumerate(value)]
    return value


def _with_arrays(value: Any, archive: Any) -> Any:
    if isinstance(value, dict):
        if set(value) == {_ARRAY_MARK}:
            return archive[value[_ARRAY_MARK]]
        return {name: _with_arrays(item, archive) for name, item in value.items()}
    if isinstance(value, list):
        return tuple(_with_arrays(item, archive) for item in value)
    return value


#: One of a network's variables, of any shape.
Variable = Annotated[NDArray[Any], ArrayOf(np.generic)]
