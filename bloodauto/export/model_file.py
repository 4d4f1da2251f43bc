"""A ``.keras`` file: checked before Keras builds anything from it, and written so that older versions of Keras can read it."""

from __future__ import annotations

import inspect
import json
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import keras

from bloodauto.errors import UserError
from bloodauto.models.weights_file import outside_reference

_CONFIG, _WEIGHTS = "config.json", "model.weights.h5"
_MEMBERS = frozenset({_CONFIG, "metadata.json", _WEIGHTS})
#: The structure of the largest ensemble takes a few MiB, its weights less than a GiB.
_MAX_CONFIG_BYTES = 64 * 2**20
_MAX_FILE_BYTES = 8 * 2**30
#: Layers that run code from a file or from elsewhere, or read further files.
_REFUSED_LAYERS = frozenset(
    {
        "FlaxLayer", "HashedCrossing", "Hashing", "IntegerLookup", "JaxLayer", "Lambda", "StringLookup", "TFSMLayer",
        "TextVectorization", "TorchModuleWrapper", "Wrapper",
    }
)  # fmt: skip
#: Where the classes of the allowed layers and what configures them lie.
_ALLOWED_NAMESPACES = (keras.layers, keras.initializers, keras.regularizers, keras.constraints, keras.dtype_policies)
#: Models, layers of ConvNeXt, and values that Keras writes as if they were of a class.
_ALLOWED_NAMES = frozenset(
    {
        "Functional",
        "LayerScale",
        "Sequential",
        "StochasticDepth",
        "__keras_tensor__",
        "__numpy__",
        "__tensor__",
        "__tuple__",
        "__ellipsis__",
        "slice",
    }
)
_ALLOWED_MODULES = frozenset(
    {
        "", "builtins", "keras", "keras.constraints", "keras.dtype_policies", "keras.initializers", "keras.layers",
        "keras.regularizers", "keras.src.applications.convnext", "keras.src.models.functional", "keras.src.models.sequential",
    }
)  # fmt: skip
#: Operations (``images / 2``, ``keras.ops.log``) are classes of these modules.
_OPERATION_MODULES = "keras.src.ops."
#: Arguments that the oldest Keras we support does not know; at their default they are left out.
_NEWER_ARGUMENTS = frozenset({"renorm", "renorm_clipping", "renorm_momentum", "sliding_window", "use_gate"})


def check_model_file(path: Path) -> None:
    """Checks that a ``.keras`` file holds a network of Keras' own layers and nothing else, before anything is built from it.

    Args:
        path: The file.

    Raises:
        UserError: No archive of Keras, one that unpacks to more than 8 GiB, a layer that is not on the list of allowed ones, or
            weights that refer to other files.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            _check_members(path, archive)
            _check_classes(path, json.loads(archive.read(_CONFIG)))
            _check_weights(path, archive)
    except (
        OSError,
        ValueError,
        RuntimeError,
        KeyError,
        RecursionError,
        NotImplementedError,
        zipfile.BadZipFile,
    ) as error:
        reason = str(error).strip().splitlines()
        raise UserError(
            f"{path}: expected a Keras model, got a damaged file or something else "
            f"({reason[0][:200] if reason else type(error).__name__}). Copy it again, or export again."
        ) from error


def _check_members(path: Path, archive: zipfile.ZipFile) -> None:
    sizes = {info.filename: info.file_size for info in archive.infolist()}
    if sizes.keys() != _MEMBERS or len(archive.infolist()) != len(_MEMBERS):
        raise UserError(
            f"{path}: expected a Keras model that holds {', '.join(sorted(_MEMBERS))}, found {sorted(sizes)[:12]}. "
            "Export again with bloodauto export-best."
        )
    if sizes[_CONFIG] > _MAX_CONFIG_BYTES or sum(sizes.values()) > _MAX_FILE_BYTES:
        raise UserError(
            f"{path}: expected a Keras model of at most {_MAX_FILE_BYTES / 2**30:.0f} GiB, with at most "
            f"{_MAX_CONFIG_BYTES / 2**20:.0f} MiB for its layers; it unpacks to {sum(sizes.values()) / 2**30:.2f} GiB."
        )


def _check_classes(path: Path, config: Any) -> None:
    allowed = _ALLOWED_NAMES | {name for space in _ALLOWED_NAMESPACES for name in dir(space) if name[0].isupper()}
    allowed -= _REFUSED_LAYERS
    for entry in _entries(config):
        name, module = entry["class_name"], entry.get("module")
        module = "" if module is None else module
        is_operation = isinstance(module, str) and module.startswith(_OPERATION_MODULES)
        is_ours = isinstance(name, str) and name in allowed and isinstance(module, str) and module in _ALLOWED_MODULES
        registered = entry.get("registered_name")
        if not (is_ours or is_operation) or registered not in (None, name):
            raise UserError(
                f"{path}: expected layers of Keras that hold no code of their own, got {name!r} of {module!r}. "
                "Load models of bloodauto export-best alone."
            )


def _entries(value: Any) -> Iterator[dict[str, Any]]:
    """Every mapping in the configuration from which Keras would make an object."""
    pending = [value]
    while pending:
        current = pending.pop()
        if isinstance(current, dict):
            if "class_name" in current:
                yield current
            pending.extend(current.values())
        elif isinstance(current, list):
            pending.extend(current)


def _check_weights(path: Path, archive: zipfile.ZipFile) -> None:
    with tempfile.TemporaryFile() as copy:
        with archive.open(_WEIGHTS) as stream:
            shutil.copyfileobj(stream, copy)
        copy.seek(0)
        with h5py.File(copy, "r") as file:
            reference = outside_reference(file)
    if reference is not None:
        raise UserError(
            f"{path}: expected a model that holds its weights, got a reference to another file at {reference}."
        )


def drop_newer_arguments(path: Path) -> None:
    """Leaves those arguments out of a ``.keras`` file that have their default value and that older versions of Keras refuse.

    Args:
        path: The file, which is replaced.
    """
    rewritten = path.with_name(f"{path.name}.rewritten")
    try:
        with zipfile.ZipFile(path) as source, zipfile.ZipFile(rewritten, "w") as target:
            for info in source.infolist():
                if info.filename == _CONFIG:
                    config = json.loads(source.read(info))
                    _drop_defaults(config)
                    target.writestr(info, json.dumps(config))
                    continue
                with source.open(info) as stream, target.open(info, "w", force_zip64=True) as copy:
                    shutil.copyfileobj(stream, copy)
        rewritten.replace(path)
    finally:
        rewritten.unlink(missing_ok=True)


def _drop_defaults(config: Any) -> None:
    for entry in _entries(config):
        name, arguments = str(entry["class_name"]), entry.get("config")
        cls = next((getattr(space, name) for space in _ALLOWED_NAMESPACES if hasattr(space, name)), None)
        if cls is None or not isinstance(arguments, dict):
            continue
        parameters = inspect.signature(cls.__init__).parameters
        for argument in [argument for argument in arguments if argument in parameters]:
            default, value = parameters[argument].default, arguments[argument]
            # None for None is the same in every version; another default may have been chosen anew.
            if value == default and (value is None or argument in _NEWER_ARGUMENTS):
                del arguments[argument]
