"""What `make images` tells each builder, and how it reads what came of it; no builder is needed."""

import ctypes
import importlib.util
import itertools
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from k8s.images import build, distribution
from k8s.images.strip_libraries import stripped

ROOT = Path(__file__).parents[2]
JOB = build.Job("auth", "localhost/x/auth:1", "base:1", Path("/out/auth.tar"), "1", secrets={"ca": Path("/ca.pem")})


@pytest.mark.parametrize("builder", build.BUILDERS)
def test_commands_pass_service_base_and_secrets(builder: str) -> None:
    """Each builder is told what to build on what, and may read the CA bundle only as a secret."""
    first = build.commands(builder, JOB)[0]
    pairs = set(itertools.pairwise(first))
    assert {("--build-arg", "SERVICE=auth"), ("--build-arg", "BASE=base:1"), ("--secret", "id=ca,src=/ca.pem")} <= pairs
    assert not any("/ca.pem" in part for part in first if not part.startswith("id=ca,"))


@pytest.mark.parametrize("builder", build.BUILDERS)
def test_commands_fix_the_time(builder: str) -> None:
    """Each builder stamps image and files with the given time, not with now."""
    line = " ".join(build.commands(builder, JOB)[0])
    assert ("SOURCE_DATE_EPOCH=0" in line and "rewrite-timestamp=true" in line) or "--timestamp 0" in line


@pytest.mark.parametrize("builder", build.BUILDERS)
def test_commands_write_the_archive(builder: str) -> None:
    """The archive is where the job wants it, as an OCI one."""
    line = " ".join(part for command in build.commands(builder, JOB) for part in command)
    assert "dest=/out/auth.tar" in line or "oci-archive:/out/auth.tar:localhost/x/auth:1" in line


def test_commands_leave_the_base_to_the_dockerfile() -> None:
    """Without a base of ours the Dockerfile's own is used."""
    job = build.Job("auth", "x", None, Path("/out/auth.tar"), "1")
    assert not any(part.startswith("BASE=") for part in build.commands("podman", job)[0])


def test_dockerfile_pins_its_base_by_digest() -> None:
    """What users build on cannot change under them."""
    assert re.search(r"^ARG BASE=\S+@sha256:[0-9a-f]{64}$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)


@pytest.mark.parametrize("service", build.SERVICES)
def test_dockerfile_knows_every_service(service: str) -> None:
    """Each image has a stage for what it holds, one for how it starts, and a lock if it has dependencies."""
    text = (ROOT / "Dockerfile").read_text()
    assert f"AS code-{service}\n" in text
    assert f"AS run-{service}\n" in text
    assert service == "models" or (ROOT / "requirements" / f"{service}.txt").is_file()


def test_layers_of_base_end_at_our_first_instruction() -> None:
    """Layers before it are the base's; steps without a layer do not count."""
    history: list[dict[str, object]] = [
        {"created_by": "ADD rootfs"},
        {"created_by": "ENV A=b", "empty_layer": True},
        {"created_by": "RUN apt-get"},
        {"created_by": "STOPSIGNAL SIGTERM", "empty_layer": True},
        {"created_by": "COPY"},
    ]
    assert build.layers_of_base(history) == 2


def test_layers_of_base_refuses_a_foreign_image() -> None:
    """An image without our first instruction has no sizes to report."""
    with pytest.raises(build.BuildFailed, match="STOPSIGNAL"):
        build.layers_of_base([{"created_by": "ADD rootfs"}])


def test_build_names_unknown_images_and_those_there_are() -> None:
    """A typo is answered with the names that would work."""
    command = [sys.executable, "k8s/images/build.py", "gatewya"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert run.returncode == 2
    assert "gatewya" in run.stderr
    assert "gateway, auth, records" in run.stderr


def test_build_without_a_builder_says_what_to_install(tmp_path: Path) -> None:
    """Where there is no docker, podman or buildah, the sentence names them."""
    command = [sys.executable, "k8s/images/build.py", "--output", str(tmp_path)]
    environment = {"PATH": str(tmp_path)}
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60, env=environment)
    assert run.returncode == 1
    assert "install docker, podman or buildah" in run.stderr


def test_entry_points_are_those_of_the_packages_in_the_image() -> None:
    """The records image offers records' commands and not auth's, whose code it lacks."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    text = distribution.entry_points(project, {"healthguard", "records"})
    assert "\nrecords = records." in text
    assert "auth" not in text


def test_stripped_library_still_loads_and_is_smaller(tmp_path: Path) -> None:
    """The dynamic loader does not miss what was cut."""
    found = importlib.util.find_spec("uvloop.loop")
    assert found is not None
    assert found.origin is not None
    before = Path(found.origin).read_bytes()
    copy = tmp_path / "library.so"
    copy.write_bytes(stripped(before))
    assert copy.stat().st_size < len(before)
    assert ctypes.PyDLL(str(copy)).PyInit_loop


def test_stripped_module_is_imported(tmp_path: Path) -> None:
    """An interpreter that imports the stripped module from a file gets the module."""
    found = importlib.util.find_spec("multidict._multidict")
    assert found is not None
    assert found.origin is not None
    copy = tmp_path / Path(found.origin).name
    copy.write_bytes(stripped(Path(found.origin).read_bytes()))
    run = subprocess.run([sys.executable, "-c", "import _multidict"], cwd=tmp_path, check=False, timeout=60)
    assert run.returncode == 0


def test_stripped_leaves_other_files_alone() -> None:
    """Something that is only named like a library comes back as it was."""
    assert stripped(b"/* GNU ld script */") == b"/* GNU ld script */"


def test_ignore_file_lets_no_secret_into_the_build() -> None:
    """The build's context is an allow-list: whatever lies in the tree beside the named folders stays out."""
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
