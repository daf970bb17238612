"""Tell which format a file has by its content, never by its name, and bound its size before anything is parsed."""

import zipfile
from pathlib import Path
from typing import Literal

from models import artifact
from models.importing.request import CannotImport

Format = Literal["h5", "keras", "saved_model", "tflite"]

SOURCE_BYTES_MAX = 1024 * 1024 * 1024
"""A version is written as one protobuf message, which cannot be larger than two gigabytes."""

ENTRIES_MAX = 64
_KERAS_ENTRIES = {"config.json", "metadata.json", "model.weights.h5"}
CONFIG_BYTES_MAX = 32 * 1024 * 1024
_HDF5_START = b"\x89HDF\r\n\x1a\n"


def recognise(source: Path) -> Format:
    """
    Return the format of *source*.

    Raises:
        CannotImport: there is nothing, or nothing that can be imported, or it is too large.
    """
    if source.is_dir():
        return _folder(source)
    if not source.is_file():
        raise CannotImport(f"There is no file {source}.")
    _bounded(source.stat().st_size)
    with source.open("rb") as file:
        start = file.read(8)
    if start == _HDF5_START:
        return "h5"
    if start[4:8] == b"TFL3":
        return "tflite"
    if start[:2] == b"PK":
        return _archive(source)
    raise CannotImport("This is neither HDF5 (.h5), nor .keras, nor a SavedModel folder, nor .tflite.")


def _folder(source: Path) -> Format:
    if not (source / "saved_model.pb").is_file():
        raise CannotImport("This folder has no saved_model.pb, so it is no SavedModel.")
    try:
        _bounded(sum(path.stat().st_size for path in artifact.files(source)))
    except artifact.TamperedError as error:
        raise CannotImport(f"This SavedModel cannot be read safely: {error}.") from error
    return "saved_model"


def _bounded(size: int) -> None:
    if size > SOURCE_BYTES_MAX:
        raise CannotImport(f"This model has {size} bytes; at most {SOURCE_BYTES_MAX} can be imported.")


def _archive(source: Path) -> Format:
    try:
        with zipfile.ZipFile(source) as archive:
            check_archive(archive)
    except (zipfile.BadZipFile, OSError, NotImplementedError) as error:
        raise CannotImport("This .keras file is damaged.") from error
    return "keras"


def check_archive(archive: zipfile.ZipFile) -> None:
    """
    Hold an archive to what Keras writes, by its list of contents alone: names, count and sizes when unpacked.

    Raises:
        CannotImport: it holds something else, or would unpack to too much.
    """
    entries = [entry for entry in archive.infolist() if not entry.is_dir()]
    names = [entry.filename for entry in entries]
    if any(name.endswith((".pkl", "data.pkl")) for name in names):
        raise CannotImport("This is a PyTorch file, which holds pickled code; export it to one of our formats first.")
    if len(entries) > ENTRIES_MAX or set(names) != _KERAS_ENTRIES or len(names) != len(_KERAS_ENTRIES):
        strange = sorted(set(names) - _KERAS_ENTRIES)
        raise CannotImport(
            f"This is not a .keras file: it {f'also holds {strange[0]!r}' if strange else 'lacks a part'}."
        )
    if sum(entry.file_size for entry in entries) > SOURCE_BYTES_MAX:
        raise CannotImport(f"This .keras file would unpack to more than {SOURCE_BYTES_MAX} bytes.")
    config = archive.getinfo("config.json")
    if config.file_size > CONFIG_BYTES_MAX:
        raise CannotImport("The description of the network in this .keras file is too long.")
