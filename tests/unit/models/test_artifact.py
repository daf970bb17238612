"""Model versions on disk: what is served is what the manifest vouches for, byte for byte."""

import hashlib
import json
import os
from pathlib import Path

import pytest

from models import artifact

MANIFEST = """\
apiVersion: serving.healthguard.io/v1alpha1
kind: ServedModel
metadata:
  name: cancer
spec:
  versions:
    - version: 1
      storageUri: pvc://models/cancer/1
      digest: {digest}
  traffic:
    stable: 1
"""
NO_DIGEST = "sha256:" + "0" * 64


@pytest.fixture
def version_folder(tmp_path: Path) -> Path:
    """Return a small version folder."""
    folder = tmp_path / "cancer" / "1"
    golden = folder / "assets.extra" / "golden"
    golden.mkdir(parents=True)
    (folder / "saved_model.pb").write_bytes(b"graph")
    (golden / "positive-01.png").write_bytes(b"picture")
    case = {"file": "positive-01.png", "label": "Positive", "probability": 0.9, "ood_score": 0.5}
    (golden / "cases.json").write_text(json.dumps({"tolerance": 0.001, "cases": [case]}))
    return folder


@pytest.fixture
def version(version_folder: Path) -> artifact.Version:
    """Return the manifest's entry for the folder as it is now."""
    return artifact.Version(1, "pvc://models/cancer/1", artifact.digest(version_folder))


def write_manifest(tmp_path: Path, text: str) -> Path:
    """Write a manifest and return its path."""
    path = tmp_path / "servedmodel.yaml"
    path.write_text(text)
    return path


def test_one_file_cannot_read_like_two(tmp_path: Path) -> None:
    """With a line break in its name it would have the lines of both, and so the digest of another folder."""
    for name in ("a", "b"):
        (tmp_path / "two" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "two" / name).write_bytes(name.encode())
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / f"a\n{artifact.sha256(tmp_path / 'two' / 'b')}  b").write_bytes(b"a")
    with pytest.raises(artifact.TamperedError, match="strange letter"):
        artifact.digest(tmp_path / "one")


def test_folder_that_cannot_be_read_does_not_pass_for_empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What nobody can look into is not vouched for."""

    def locked(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    # Root, as whom tests may run, reads every folder.
    monkeypatch.setattr(os, "scandir", locked)
    with pytest.raises(PermissionError):
        artifact.files(tmp_path)


@pytest.mark.parametrize("text", ["[" * 60_000, MANIFEST.replace("version: 1", "version: .inf"), "\0"])
def test_manifest_that_breaks_its_reader_is_refused(tmp_path: Path, text: str) -> None:
    """Nested too deeply, an endless number, no text: a sentence, and no crash."""
    with pytest.raises(artifact.ManifestError):
        artifact.read_manifest(write_manifest(tmp_path, text.format(digest=NO_DIGEST)))


def test_golden_cases_that_are_nested_too_deeply_are_refused(version_folder: Path) -> None:
    """A sentence, and no crash."""
    (version_folder / "assets.extra" / "golden" / "cases.json").write_text("[" * 60_000)
    with pytest.raises(artifact.ArtifactError, match="golden"):
        artifact.golden(version_folder)


def test_digest_is_over_the_sorted_lines_of_all_files(tmp_path: Path) -> None:
    """The digest is the SHA-256 of lines that `sha256sum` would print, sorted."""
    (tmp_path / "sub").mkdir()
    (tmp_path / "b").write_bytes(b"one")
    (tmp_path / "sub" / "a").write_bytes(b"two")
    one, two = hashlib.sha256(b"one").hexdigest(), hashlib.sha256(b"two").hexdigest()
    lines = sorted([f"{one}  b\n", f"{two}  sub/a\n"])
    assert artifact.digest(tmp_path) == "sha256:" + hashlib.sha256("".join(lines).encode()).hexdigest()


def test_verify_accepts_the_folder_that_the_manifest_names(version_folder: Path, version: artifact.Version) -> None:
    """An untouched folder passes."""
    artifact.verify(version_folder, version)


def test_verify_refuses_a_flipped_bit(version_folder: Path, version: artifact.Version) -> None:
    """One bit of one file is enough."""
    path = version_folder / "saved_model.pb"
    data = bytearray(path.read_bytes())
    data[0] ^= 1
    path.write_bytes(data)
    with pytest.raises(artifact.TamperedError):
        artifact.verify(version_folder, version)


def test_verify_refuses_a_missing_file(version_folder: Path, version: artifact.Version) -> None:
    """A file less is another version."""
    (version_folder / "assets.extra" / "golden" / "positive-01.png").unlink()
    with pytest.raises(artifact.TamperedError):
        artifact.verify(version_folder, version)


def test_verify_refuses_an_extra_file(version_folder: Path, version: artifact.Version) -> None:
    """A file more, even an empty one, is another version."""
    (version_folder / "extra").touch()
    with pytest.raises(artifact.TamperedError):
        artifact.verify(version_folder, version)


def test_verify_refuses_a_renamed_file(version_folder: Path, version: artifact.Version) -> None:
    """Names count as much as contents."""
    (version_folder / "saved_model.pb").rename(version_folder / "saved_model.pbtxt")
    with pytest.raises(artifact.TamperedError):
        artifact.verify(version_folder, version)


@pytest.mark.parametrize("is_folder", [False, True], ids=["a link to a file", "a link to a folder"])
def test_digest_refuses_links(version_folder: Path, tmp_path: Path, *, is_folder: bool) -> None:
    """What a link leads to can change after the check, so links are refused even where the contents are the same."""
    target = tmp_path / "elsewhere"
    if is_folder:
        target.mkdir()
    else:
        target.write_bytes(b"graph")
        (version_folder / "saved_model.pb").unlink()
    (version_folder / ("assets" if is_folder else "saved_model.pb")).symlink_to(target)
    with pytest.raises(artifact.TamperedError):
        artifact.digest(version_folder)


def test_digest_refuses_a_folder_that_is_not_there(tmp_path: Path) -> None:
    """No folder is not the same as an empty one."""
    with pytest.raises(artifact.TamperedError):
        artifact.digest(tmp_path / "7")


def test_manifest_names_versions_with_digests(tmp_path: Path) -> None:
    """The manifest is read into typed values."""
    manifest = artifact.read_manifest(write_manifest(tmp_path, MANIFEST.format(digest=NO_DIGEST)))
    assert manifest == artifact.Manifest("cancer", (artifact.Version(1, "pvc://models/cancer/1", NO_DIGEST),), 1)
    assert manifest.version(1).digest == NO_DIGEST
    with pytest.raises(artifact.ManifestError):
        manifest.version(2)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "- a list",
        "kind: ServedModel",
        "{unfinished",
        MANIFEST.format(digest=NO_DIGEST).replace("ServedModel", "Deployment"),
        MANIFEST.format(digest="sha256:short"),
        MANIFEST.format(digest=NO_DIGEST).replace("name: cancer", "name: ../cancer"),
        MANIFEST.format(digest=NO_DIGEST).replace("stable: 1", "stable: 2"),
        MANIFEST.format(digest=NO_DIGEST).replace("version: 1", "version: 0"),
        MANIFEST.format(digest=NO_DIGEST) + "#" * artifact.MANIFEST_BYTES_MAX,
    ],
    ids=[
        "empty",
        "a list",
        "no spec",
        "not YAML",
        "another kind",
        "a short digest",
        "a name that is a path",
        "stable is not listed",
        "version zero",
        "too large",
    ],
)
def test_manifest_that_is_malformed_is_refused(tmp_path: Path, text: str) -> None:
    """Whatever is wrong with a manifest, the error is of one kind."""
    with pytest.raises(artifact.ManifestError):
        artifact.read_manifest(write_manifest(tmp_path, text))


def test_manifest_that_is_missing_is_refused(tmp_path: Path) -> None:
    """A missing file is an error of the same kind."""
    with pytest.raises(artifact.ManifestError):
        artifact.read_manifest(tmp_path / "servedmodel.yaml")


def test_manifests_are_found_by_model(tmp_path: Path) -> None:
    """Every folder with a manifest is a model."""
    for name in ("b", "a"):
        (tmp_path / name).mkdir()
        write_manifest(tmp_path / name, "")
    (tmp_path / "c").mkdir()
    assert [path.parent.name for path in artifact.manifests(tmp_path)] == ["a", "b"]


def test_folder_of_a_version_is_in_the_claim(tmp_path: Path) -> None:
    """The claim `models` is the models folder."""
    assert artifact.folder(tmp_path, artifact.Version(1, "pvc://models/cancer/1", NO_DIGEST)) == tmp_path / "cancer/1"


@pytest.mark.parametrize(
    "address",
    ["s3://models/cancer/1", "pvc://other/cancer/1", "pvc://models/", "pvc://models/../etc", "pvc://models//etc"],
)
def test_folder_outside_the_claim_is_refused(tmp_path: Path, address: str) -> None:
    """An address may not lead out of the models folder."""
    with pytest.raises(artifact.ManifestError):
        artifact.folder(tmp_path, artifact.Version(1, address, NO_DIGEST))


def test_golden_cases_are_read_with_their_files(version_folder: Path) -> None:
    """Each case leads to the file beside the list."""
    golden = artifact.golden(version_folder)
    assert golden.tolerance == 0.001
    assert [(case.path.read_bytes(), case.label) for case in golden.cases] == [(b"picture", "Positive")]


@pytest.mark.parametrize(
    "name", ["../saved_model.pb", "positive-02.png", "", 3], ids=["a path", "absent", "none", "no text"]
)
def test_golden_case_that_names_no_file_beside_it_is_refused(version_folder: Path, name: object) -> None:
    """A case may name only a file in its own folder."""
    case = {"file": name, "label": "Positive", "probability": 0.9, "ood_score": 0.5}
    path = version_folder / "assets.extra" / "golden" / "cases.json"
    path.write_text(json.dumps({"tolerance": 0.001, "cases": [case]}))
    with pytest.raises(artifact.ArtifactError):
        artifact.golden(version_folder)


def test_golden_list_that_is_too_large_is_refused(version_folder: Path) -> None:
    """The list is bounded before it is parsed."""
    path = version_folder / "assets.extra" / "golden" / "cases.json"
    path.write_text(path.read_text() + " " * artifact.CASES_BYTES_MAX)
    with pytest.raises(artifact.ArtifactError):
        artifact.golden(version_folder)
