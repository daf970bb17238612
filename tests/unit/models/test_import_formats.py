"""Files are known by their content, and refused before they are unpacked."""

import zipfile
from pathlib import Path

import pytest

from models.importing import formats, importer
from models.importing.request import CannotImport
from tests.unit.models.test_import_reading import request

KERAS = ("config.json", "metadata.json", "model.weights.h5")


def archive(path: Path, *names: str, content: bytes = b"{}") -> Path:
    """Write an archive with the same content under all names."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made:
        for name in names:
            made.writestr(name, content)
    return path


def test_format_is_known_by_content_and_not_by_name(tmp_path: Path) -> None:
    """Whoever renames a file changes nothing."""
    path = tmp_path / "model.txt"
    path.write_bytes(b"\x89HDF\r\n\x1a\n" + b"\0" * 8)
    assert formats.recognise(path) == "h5"
    path.write_bytes(b"\x1c\0\0\0TFL3" + b"\0" * 8)
    assert formats.recognise(path) == "tflite"
    assert formats.recognise(archive(path, *KERAS)) == "keras"
    (tmp_path / "saved_model.pb").write_bytes(b"")
    assert formats.recognise(tmp_path) == "saved_model"


@pytest.mark.parametrize(
    ("names", "named"),
    [
        ((*KERAS, "../../escape"), "escape"),
        ((*KERAS, "assets/vocabulary.txt"), "vocabulary"),
        (("config.json",), "lacks"),
        ((*KERAS, "archive/data.pkl"), "pickled"),
        ((*KERAS, *(f"{i}" for i in range(100))), "keras file"),
    ],
    ids=["a way out", "assets", "no weights", "pickle", "many"],
)
def test_archive_with_something_else_in_it_is_refused(tmp_path: Path, names: tuple[str, ...], named: str) -> None:
    """Only the three files that Keras writes are taken."""
    with pytest.raises(CannotImport, match=named):
        formats.recognise(archive(tmp_path / "a.keras", *names))


def test_archive_that_would_unpack_to_too_much_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small on disk and large in memory: the list of contents is enough to say no."""
    path = archive(tmp_path / "a.keras", *KERAS, content=b"\0" * 1_000_000)
    assert path.stat().st_size < 10_000
    monkeypatch.setattr(formats, "SOURCE_BYTES_MAX", 1_000_000)
    with pytest.raises(CannotImport, match="unpack"):
        formats.recognise(path)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 and no more", b"\x80\x04\x95 a pickle", b"text"])
def test_what_is_no_model_is_refused(tmp_path: Path, content: bytes) -> None:
    """A sentence, not a stack of calls."""
    path = tmp_path / "model.h5"
    path.write_bytes(content)
    with pytest.raises(CannotImport):
        formats.recognise(path)


def test_folder_without_a_saved_model_is_refused(tmp_path: Path) -> None:
    """A folder is a SavedModel or nothing; a link in one leads who knows where."""
    with pytest.raises(CannotImport, match=r"saved_model\.pb"):
        formats.recognise(tmp_path)
    (tmp_path / "saved_model.pb").write_bytes(b"")
    (tmp_path / "variables").symlink_to("/etc")
    with pytest.raises(CannotImport, match="safely"):
        formats.recognise(tmp_path)


def test_large_file_is_refused_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The size is looked at first."""
    path = tmp_path / "model.h5"
    path.write_bytes(b"\x89HDF\r\n\x1a\n" + b"\0" * 100)
    monkeypatch.setattr(formats, "SOURCE_BYTES_MAX", 100)
    with pytest.raises(CannotImport, match="at most 100"):
        formats.recognise(path)


def test_import_never_changes_a_version_that_is_there(tmp_path: Path) -> None:
    """Versions are forever: their digest is in manifests and approvals."""
    path = tmp_path / "model.tflite"
    path.write_bytes(b"\x1c\0\0\0TFL3" + b"\0" * 8)
    (tmp_path / "m" / "1").mkdir(parents=True)
    with pytest.raises(CannotImport, match="--version"):
        importer.run(request(source=str(path)), tmp_path, lambda _: None)


def test_import_that_fails_leaves_nothing(tmp_path: Path) -> None:
    """Nobody sees half a version, nor an empty folder of a model."""
    path = tmp_path / "model.tflite"
    path.write_bytes(b"\x1c\0\0\0TFL3" + b"\0" * 8)
    with pytest.raises(CannotImport, match="damaged"):
        importer.run(request(source=str(path)), tmp_path / "out", lambda _: None)
    assert not list((tmp_path / "out").iterdir())


def test_process_that_breaks_is_told_of(tmp_path: Path) -> None:
    """A file that kills the process with TensorFlow ends the import with a sentence that has its last words."""
    path = tmp_path / "model.h5"
    path.write_bytes(b"\x89HDF\r\n\x1a\n" + b"\0" * 8)
    breaking = tmp_path / "python"
    breaking.write_text("#!/bin/sh\necho 'out of luck' >&2\nexit 9\n")
    breaking.chmod(0o755)
    with pytest.raises(CannotImport, match=r"exit code 9.*out of luck"):
        importer.run(request(source=str(path)), tmp_path / "out", lambda _: None, python=breaking)


def test_next_version_is_the_first_that_nobody_has(tmp_path: Path) -> None:
    """Numbers are never used again while one higher is there."""
    assert importer.next_version(tmp_path, "m") == 1
    for name in ("1", "7", "7.approval.json", ".making-x"):
        (tmp_path / "m" / name).mkdir(parents=True)
    assert importer.next_version(tmp_path, "m") == 8
