"""What is in the images, and above all what is not."""

import re
import stat
from pathlib import PurePosixPath

import pytest

from k8s.images import build
from tests.images.archive import is_whiteout, normal
from tests.images.built import Built

pytestmark = [pytest.mark.xdist_group("images"), pytest.mark.timeout(3600)]

USER = 10001
SIZE_MAX_BYTES = 120_000_000
# What each image may import of ours; a forbidden import fails because the code is not there.
CODE = {
    "gateway": {"healthguard", "gateway", "serving", "serving/tfs"},
    "auth": {"healthguard", "auth"},
    "records": {"healthguard", "records"},
    "operator": {"healthguard", "serving", "serving/tfs", "serving/operator"},
    "modelserver": {"healthguard", "serving", "serving/tfs", "serving/modelserver"},
}
APP = PurePosixPath("opt/healthguard/app")
FOLDERS_OF_OURS = ("opt/healthguard/venv", "opt/healthguard/bin", "opt/healthguard/app", "models")
FILES_OF_OURS = {"etc/passwd", "etc/group"}
# A builder's mount point; it is empty, and runtimes mount their own over it.
FILES_OF_BUILDERS = {"etc/hosts", "etc/resolv.conf"}
COMPILERS = re.compile(r"^(.*-)?(gcc|g\+\+|cc|c\+\+|clang|tcc|ld|as|cargo|rustc|go|make|cmake)(-[\d.]+)?$")
INSTALLERS = re.compile(r"^(pip|uv|setuptools|wheel|ensurepip|hatchling|poetry|pipx)(\d|-|\.|$)")

services = pytest.mark.parametrize("service", build.buildable())
programs = pytest.mark.parametrize("service", [service for service in build.buildable() if service != "models"])


@services
def test_image_runs_as_a_numbered_user_who_owns_nothing(built: Built, service: str) -> None:
    """Kubernetes can see that it is not root, and the process can change no file of the image."""
    archive = built.archives[service]
    assert archive.config["config"]["User"] == f"{USER}:{USER}"
    assert archive.config["config"]["StopSignal"] == "SIGTERM"
    writable = stat.S_IWGRP | stat.S_IWOTH
    files = [entry for entry in archive.own if not entry.issym() and not is_whiteout(entry)]
    assert files
    assert [entry.name for entry in files if entry.uid != 0 or entry.gid != 0 or entry.mode & writable] == []
    assert [entry.name for entry in files if entry.mode & (stat.S_ISUID | stat.S_ISGID)] == []


@services
def test_image_says_what_it_is(built: Built, service: str) -> None:
    """Title and version are this image's: a builder that kept a step of another image would give it that one's name."""
    labels = built.archives[service].config["config"]["Labels"]
    assert labels["org.opencontainers.image.title"] == f"healthguard-{service}"
    assert labels["org.opencontainers.image.version"] == built.images[service].reference.rpartition(":")[2]


@services
def test_image_adds_only_our_folders(built: Built, service: str) -> None:
    """No pip configuration, no CA bundle, no cache, no temporary file is left from the build."""
    added = {normal(entry): entry for entry in built.archives[service].own}
    files = {path: entry for path, entry in added.items() if not entry.isdir() and not is_whiteout(entry)}
    strange = {path for path in files if not path.startswith(tuple(f"{folder}/" for folder in FOLDERS_OF_OURS))}
    assert strange <= FILES_OF_OURS | FILES_OF_BUILDERS
    assert [path for path in strange & FILES_OF_BUILDERS if files[path].size] == []


@services
def test_image_carries_no_time_of_the_build(built: Built, service: str) -> None:
    """Every file of ours has the same fixed time, and so has the image."""
    archive = built.archives[service]
    assert {entry.mtime for entry in archive.own} == {0}
    assert archive.config["created"].startswith("1970-01-01")


@programs
def test_image_has_no_compiler_and_no_installer(built: Built, service: str) -> None:
    """Who breaks in finds nothing to build or install more with."""
    paths = [PurePosixPath(path) for path in built.archives[service].tree]
    assert [str(path) for path in paths if path.parent.name in {"bin", "sbin"} and COMPILERS.match(path.name)] == []
    packages = {"site-packages", "dist-packages", "bin", "python-wheels", "lib"}
    assert [str(path) for path in paths if path.parent.name in packages and INSTALLERS.match(path.name)] == []
    assert [str(path) for path in paths if path.name == "ensurepip"] == []


@programs
def test_image_has_the_code_that_it_may_import_and_no_other(built: Built, service: str) -> None:
    """The import rules hold in the image by absence."""
    folders = set()
    for path in map(PurePosixPath, built.archives[service].tree):
        if path.is_relative_to(APP) and path.suffix == ".py":
            parts = path.relative_to(APP).parts[:-1]
            folders |= {"/".join(parts[:1]), "/".join(parts[:2]) if parts[0] == "serving" else parts[0]}
    assert folders == CODE[service]


@programs
def test_image_has_byte_code_that_is_a_function_of_the_source(built: Built, service: str) -> None:
    """Starting needs no compiling, and nothing in the byte code tells when it was made (PEP 552: flags 0b01)."""
    archive = built.archives[service]
    files = {str(path) for path in map(PurePosixPath, archive.tree) if path.is_relative_to("opt/healthguard")}
    compiled = [path for path in files if path.endswith(".pyc")]
    sources = [path for path in files if path.endswith(".py")]
    assert len(compiled) == len(sources)
    module = next(path for path in compiled if path.startswith(f"{APP}/healthguard/__pycache__/settings."))
    assert archive.content(module)[4:8] == (1).to_bytes(4, "little")


@programs
def test_image_has_no_tests_and_no_stubs(built: Built, service: str) -> None:
    """What only developers read is left out, of our packages and of others'."""
    ours = [PurePosixPath(normal(entry)) for entry in built.archives[service].own]
    assert [str(path) for path in ours if "tests" in path.parts or path.suffix in {".pyi", ".pyx", ".c", ".h"}] == []


@pytest.mark.parametrize("service", [name for name in build.buildable() if name not in {"modelserver", "models"}])
def test_image_is_small(built: Built, service: str) -> None:
    """A new node pulls it in seconds: at most 120 MB over the base, compressed."""
    assert built.images[service].bytes_over_base <= SIZE_MAX_BYTES


def test_models_image_holds_whole_versions_and_no_training_code(built: Built) -> None:
    """A cluster without object storage gets each version folder as it was committed."""
    tree = set(built.archives["models"].tree)
    for model in ("anemia", "cancer"):
        files = {"saved_model.pb", "model.tflite", "assets.extra/contract.json", "assets.extra/golden/cases.json"}
        assert {f"models/{model}/1/{name}" for name in files} <= tree
        assert f"models/{model}/servedmodel.yaml" in tree
    assert [path for path in tree if path.startswith("models/") and path.endswith(".py")] == []
