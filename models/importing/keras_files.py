"""
Read networks from .h5 and .keras files without running anything that they bring along.

Keras refuses pickled code in safe mode; but what a description may name has grown with every version, and safe mode
was got round more than once. So the description is checked here first, against the list of classes that it may name,
and the weights file against everything with which HDF5 reaches out of itself.
"""

import json
import shutil
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import keras

from models.importing.formats import CONFIG_BYTES_MAX, SOURCE_BYTES_MAX, Format, check_archive
from models.importing.request import CannotImport

OBJECTS_MAX = 100_000
DEPTH_MAX = 200

_RUNS_CODE = frozenset({"Lambda", "TorchModuleWrapper", "JaxLayer", "FlaxLayer", "TFSMLayer"})
_READS_FILES = frozenset({"StringLookup", "IntegerLookup", "TextVectorization", "StaticHashTable"})
_CONTAINERS = frozenset({"Functional", "Sequential", "Model", "Policy", "InputSpec", "TensorShape"})
_MARKS = frozenset({"__keras_tensor__", "__tuple__", "__tensor__", "__numpy__", "__ellipsis__"})
_UNUSED = "compile_config"
"""
Of the model itself it is not loaded, so that losses and optimizers of one's own, which are common, do no harm. Keras
does load those of models within it: they are checked.
"""


def _known() -> frozenset[str]:
    modules = (
        keras.layers,
        keras.initializers,
        keras.regularizers,
        keras.constraints,
        keras.dtype_policies,
        keras.optimizers,
        keras.optimizers.schedules,
        keras.losses,
        keras.metrics,
    )
    names = {name for module in modules for name in dir(module) if name[0].isupper()}
    return frozenset(names | _CONTAINERS | _MARKS) - _RUNS_CODE - _READS_FILES


def load(source: Path, format_: Format, scratch: Path) -> Any:
    """
    Return the Keras model in *source*; *scratch* is an empty folder for copies.

    Raises:
        CannotImport: it would run code or read other files, or holds no model that Keras can build.
    """
    # One file can be HDF5 and an archive at once, and Keras goes by its name. So Keras gets the very bytes that were
    # checked, under the name of what they were checked as.
    copy = Path(shutil.copyfile(source, scratch / f"model.{format_}"))
    if format_ == "keras":
        _check_archive(copy, scratch)
    else:
        with _opened(copy) as file:
            check_weights(file)
            check_description(_description(file))
    try:
        return keras.saving.load_model(copy, compile=False, safe_mode=True)
    # Keras lets pass whatever its layers' constructors raise.
    except Exception as error:
        raise CannotImport(f"Keras cannot build this model: {_first_line(error)}") from error


def _check_archive(source: Path, scratch: Path) -> None:
    try:
        with zipfile.ZipFile(source) as archive:
            check_archive(archive)
            check_description(_json(archive.read("config.json")))
            # h5py needs a file to seek in; the sizes were bounded from the list of contents.
            weights = Path(archive.extract("model.weights.h5", scratch))
    # RuntimeError is that of archives with a password.
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise CannotImport("This .keras file is damaged.") from error
    with _opened(weights) as file:
        check_weights(file)


def _opened(path: Path) -> h5py.File:
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise CannotImport("The HDF5 file is damaged.") from error


def _description(file: h5py.File) -> Any:
    text = file.attrs.get("model_config")
    if text is None:
        raise CannotImport("This .h5 file holds weights without a network: save the whole model (`model.save`).")
    if not isinstance(text, str | bytes) or len(text) > CONFIG_BYTES_MAX:
        raise CannotImport("The description of the network in this .h5 file is no text, or is too long.")
    return _json(text)


def _json(text: str | bytes) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CannotImport("The description of the network is not JSON.") from error


def check_description(document: Any) -> None:
    """
    Refuse a description that names a class which runs code, reads files, or is none of Keras' own.

    Raises:
        CannotImport: it does; the text names the class.
    """
    known = _known()
    for part in _parts(document, 0):
        name = part["class_name"]
        if not isinstance(name, str):
            raise CannotImport("The description of the network names a class by something that is no name.")
        if name in _RUNS_CODE or name in ("function", "__lambda__"):
            raise CannotImport(
                f"The network has a layer of the class {name}, which carries code of its own. Code from a model file "
                "is never run here: replace it by layers of Keras, such as Rescaling, and save again."
            )
        module = part.get("module")
        foreign = isinstance(module, str) and module.partition(".")[0] not in ("keras", "builtins", "numpy")
        if name not in known or foreign:
            raise CannotImport(f"The network has a part of the class {name!s:.60}, which is not one of Keras' own.")


def _parts(value: Any, depth: int) -> Iterator[dict[str, Any]]:
    """Yield every object in a description that names a class."""
    if depth > DEPTH_MAX:
        raise CannotImport("The description of the network is nested too deeply.")
    if isinstance(value, dict):
        if "class_name" in value:
            yield value
        for key, inner in value.items():
            if depth or key != _UNUSED:
                yield from _parts(inner, depth + 1)
    elif isinstance(value, list):
        for inner in value:
            yield from _parts(inner, depth + 1)


def check_weights(file: h5py.File) -> None:
    """
    Refuse an HDF5 file that reaches into other files, or that would unpack to more than we read.

    Raises:
        CannotImport: it does.
    """
    objects, size = 0, 0
    waiting = [file["/"]]
    while waiting:
        group = waiting.pop()
        for name in group:
            objects += 1
            if objects > OBJECTS_MAX:
                raise CannotImport(f"The HDF5 file has more than {OBJECTS_MAX} objects.")
            # Soft links could make a loop, and external ones name any file of this machine.
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                raise CannotImport(f"The HDF5 file has a link at {name!s:.60}: only data of its own is read.")
            found = group[name]
            if isinstance(found, h5py.Dataset):
                size += _size(found, name)
            elif isinstance(found, h5py.Group):
                waiting.append(found)
            if size > SOURCE_BYTES_MAX:
                raise CannotImport(f"The HDF5 file would unpack to more than {SOURCE_BYTES_MAX} bytes.")


def _size(dataset: h5py.Dataset, name: str) -> int:
    """Return the bytes of a dataset in memory."""
    # Strings and lists of any length lie elsewhere in the file, and many elements can name the same long one.
    if dataset.dtype.hasobject:
        raise CannotImport(f"The HDF5 file has something else than numbers at {name!s:.60}.")
    if dataset.external or dataset.is_virtual:
        raise CannotImport(f"The HDF5 file keeps {name!s:.60} in another file: only data of its own is read.")
    return int(dataset.nbytes)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:300]
