"""
Build HealthGuard's container images with docker, podman or buildah: `make images`.

Every image is built from the Dockerfile and written as an OCI archive, build/images/SERVICE.tar, which a registry, a
cluster's containerd (`ctr images import`) or a disconnected site takes as it is. It also lies in the builder's store.
The same tree and base give the same digest with the same builder: no file and no image carries the time of the build.
"""

# ruff: noqa: S603, T201 - a command for the terminal, which starts commands that it made itself

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import time
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
BUILDERS = ("docker", "podman", "buildah")
PROBE_TIMEOUT_S = 30
BUILD_TIMEOUT_S = 1800
LOG_LINES_SHOWN = 30

# Each image, and what must exist in the tree for there to be anything to build.
SERVICES = {
    "gateway": "gateway/__main__.py",
    "auth": "auth/__main__.py",
    "records": "records/__main__.py",
    "operator": "serving/operator/__main__.py",
    "modelserver": "serving/modelserver/__main__.py",
    "models": "models/*/[0-9]*",
}
# The first instruction of the Dockerfile's last stages: what an image's history has before it is the base.
FIRST_INSTRUCTION = "STOPSIGNAL"


class BuildFailed(Exception):
    """An image could not be built; the message says why."""


@dataclass(frozen=True)
class Job:
    """One image to build."""

    service: str
    reference: str
    """Registry, repository and tag."""
    base: str | None
    """The image to build on; None is the Dockerfile's own."""
    archive: Path
    """Where the OCI archive goes."""
    version: str
    revision: str = ""
    epoch: int = 0
    """Time that files and image carry; seconds since 1970. Always the same, so that an unchanged layer is the same in
    every release, and nodes need not pull it again."""
    secrets: dict[str, Path] = field(default_factory=dict)
    """Files that the build may read and no layer keeps, by the Dockerfile's names for them."""
    fresh: bool = False
    """Whether to build every step anew."""


@dataclass(frozen=True)
class Image:
    """What was built."""

    service: str
    reference: str
    archive: str
    digest: str
    base_bytes: int
    """Compressed size of the layers that came with the base."""
    bytes_over_base: int
    """Compressed size of our own layers."""
    build_s: float


def commands(builder: str, job: Job) -> list[list[str]]:
    """Return the commands that build *job* with *builder*, in order."""
    arguments = {"SERVICE": job.service, "VERSION": job.version, "REVISION": job.revision}
    if job.base:
        arguments["BASE"] = job.base
    options = [part for name, value in arguments.items() for part in ("--build-arg", f"{name}={value}")]
    options += [part for name, path in job.secrets.items() for part in ("--secret", f"id={name},src={path}")]
    options += ["--no-cache"] if job.fresh else []
    if builder == "docker":
        # An attestation would carry the time of the build; CI attaches its own to the pushed digest.
        output = f"type=oci,dest={job.archive},name={job.reference},rewrite-timestamp=true"
        options += ["--build-arg", f"SOURCE_DATE_EPOCH={job.epoch}", "--provenance=false", "--output", output]
        return [["docker", "buildx", "build", *options, "."], ["docker", "load", "--input", str(job.archive)]]
    options += ["--layers", "--format", "oci", "--timestamp", str(job.epoch), "--tag", job.reference]
    # buildah's chroot isolation needs no container runtime and works inside containers, as in CI. It shields the host
    # less, which is fair: what runs in the build are our own lines and packages pinned by hash, and nothing of theirs
    # is executed, only unpacked.
    options += ["--isolation", "chroot"] if builder == "buildah" else []
    return [
        [builder, "build", *options, "."],
        [builder, "push", "--quiet", job.reference, f"oci-archive:{job.archive}:{job.reference}"],
    ]


def import_commands(builder: str, rootfs: Path, reference: str, container: str) -> list[list[str]]:
    """Return the commands that make the image *reference* of the tar file *rootfs*."""
    if builder != "buildah":
        return [[builder, "import", str(rootfs), reference]]
    return [
        ["buildah", "from", "--name", container, "scratch"],
        ["buildah", "add", "--quiet", container, str(rootfs), "/"],
        ["buildah", "commit", "--quiet", "--rm", "--timestamp", "0", container, reference],
    ]


def describe(job: Job, seconds: float) -> Image:
    """Read digest and sizes of the image of *job* from its archive."""
    with tarfile.open(job.archive) as archive:
        digest = _document(archive, "index.json")["manifests"][0]["digest"]
        manifest = _document(archive, _blob(digest))
        config = _document(archive, _blob(manifest["config"]["digest"]))
    sizes = [layer["size"] for layer in manifest["layers"]]
    of_base = layers_of_base(config["history"])
    return Image(
        service=job.service,
        reference=job.reference,
        archive=str(job.archive),
        digest=digest,
        base_bytes=sum(sizes[:of_base]),
        bytes_over_base=sum(sizes[of_base:]),
        build_s=round(seconds, 1),
    )


def _blob(digest: str) -> str:
    return f"blobs/{digest.replace(':', '/')}"


def _document(archive: tarfile.TarFile, name: str) -> Any:
    member = archive.extractfile(name)
    if member is None:
        raise BuildFailed(f"{name} in the archive is no file")
    return json.load(member)


def layers_of_base(history: Iterable[dict[str, Any]]) -> int:
    """
    Return how many layers came with the base.

    Raises:
        BuildFailed: the image was not built by our Dockerfile.
    """
    layers = 0
    for step in history:
        if FIRST_INSTRUCTION in step.get("created_by", ""):
            return layers
        layers += not step.get("empty_layer", False)
    raise BuildFailed(f"the image's history has no {FIRST_INSTRUCTION}: was the Dockerfile changed?")


def choose_builder() -> str:
    """
    Return the first builder that works here; a docker client without its daemon does not.

    Raises:
        BuildFailed: there is none.
    """
    for builder in BUILDERS:
        if shutil.which(builder) and _works(builder):
            return builder
    raise BuildFailed(
        "No image builder works here: install docker, podman or buildah (Debian: apt-get install buildah)."
    )


def _works(builder: str) -> bool:
    try:
        probe = subprocess.run([builder, "info"], capture_output=True, timeout=PROBE_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        return False
    return probe.returncode == 0


def found_secrets() -> dict[str, Path]:
    """Return this machine's CA bundle and pip configuration, where it has any: what reaches its package index."""
    candidates = {
        "ca": [os.environ.get("PIP_CERT"), os.environ.get("SSL_CERT_FILE")],
        "pip_config": [os.environ.get("PIP_CONFIG_FILE"), "~/.config/pip/pip.conf", "/etc/pip.conf"],
    }
    found = {}
    for name, paths in candidates.items():
        files = (Path(path).expanduser() for path in paths if path)
        if file := next((file for file in files if file.is_file()), None):
            found[name] = file
    return found


def run(command: Sequence[str], log: Path) -> None:
    """
    Run *command* in the repository's root, its output in *log*.

    Raises:
        BuildFailed: it failed or took too long; with the end of its output.
    """
    with log.open("ab") as output:
        try:
            subprocess.run(command, cwd=ROOT, stdout=output, stderr=output, check=True, timeout=BUILD_TIMEOUT_S)
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as exc:
            end = "\n".join(log.read_text(errors="replace").splitlines()[-LOG_LINES_SHOWN:])
            raise BuildFailed(f"{end}\n{' '.join(command[:2])} failed; all of its output is in {log}") from exc


def base_image(builder: str, base: str | None, log: Path) -> str | None:
    """
    Return the reference of the image to build on; a root file system in a tar file becomes one first.

    Raises:
        BuildFailed: the builder could not import it.
    """
    if base is None or not Path(base).is_file():
        return base
    rootfs = Path(base).resolve()
    with rootfs.open("rb") as content:
        key = hashlib.file_digest(content, "sha256").hexdigest()[:16]
    reference = f"localhost/healthguard/base:{key}"
    inspect = [builder, "inspect", "--type", "image", reference]
    if subprocess.run(inspect, capture_output=True, timeout=PROBE_TIMEOUT_S, check=False).returncode != 0:
        print(f"base: importing {rootfs.name} as {reference}", flush=True)
        for command in import_commands(builder, rootfs, reference, container=f"healthguard-base-{os.getpid()}"):
            run(command, log)
    return reference


def build(builder: str, job: Job, log: Path) -> Image:
    """
    Build one image and write its archive.

    Raises:
        BuildFailed: the builder said no.
    """
    start = time.monotonic()
    # Builders add to an archive that is there, or refuse it.
    job.archive.unlink(missing_ok=True)
    for command in commands(builder, job):
        run(command, log)
    return describe(job, time.monotonic() - start)


def buildable() -> list[str]:
    """Return the services whose code is in the tree."""
    return [service for service, needs in SERVICES.items() if any(ROOT.glob(needs))]


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n\n")[0].strip(), epilog=f"Images: {', '.join(SERVICES)}."
    )
    parser.add_argument("services", nargs="*", metavar="SERVICE", help="what to build (default: all)")
    parser.add_argument("--builder", choices=BUILDERS, help="default: the first that works")
    parser.add_argument(
        "--base", default=os.environ.get("BASE") or None, help="image, or root file system in a tar file"
    )
    parser.add_argument(
        "--prefix", default="localhost/healthguard", help="registry and repository (default: %(default)s)"
    )
    parser.add_argument("--tag", help="default: the version in pyproject.toml")
    parser.add_argument("--revision", default="", help="commit, for the image's label")
    parser.add_argument("--output", type=Path, default=ROOT / "build" / "images", help="folder of the archives")
    parser.add_argument(
        "--epoch", type=int, default=int(os.environ.get("SOURCE_DATE_EPOCH", "0")), help="seconds since 1970"
    )
    parser.add_argument("--fresh", action="store_true", help="use no earlier step's result")
    options = parser.parse_args(arguments)
    if unknown := set(options.services) - SERVICES.keys():
        parser.error(f"no such image: {', '.join(sorted(unknown))}; there are {', '.join(SERVICES)}")
    return options


def jobs(options: argparse.Namespace, base: str | None) -> list[Job]:
    """Return what the command line asks for."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    secrets = found_secrets()
    return [
        Job(
            service=service,
            reference=f"{options.prefix}/{service}:{options.tag or version}",
            base=base,
            archive=options.output.resolve() / f"{service}.tar",
            version=version,
            revision=options.revision,
            epoch=options.epoch,
            secrets=secrets,
            fresh=options.fresh,
        )
        for service in options.services or buildable()
    ]


def main() -> None:
    """Build what the command line asks for, one line per image, and list it in images.json."""
    options = parse()
    options.output.mkdir(parents=True, exist_ok=True)
    log = options.output / "build.log"
    log.unlink(missing_ok=True)
    try:
        builder = options.builder or choose_builder()
        wanted = jobs(options, base_image(builder, options.base, log))
        images = []
        for job in wanted:
            print(f"{job.service}: building with {builder}", flush=True)
            image = build(builder, job, log)
            images.append(image)
            sizes = f"{image.bytes_over_base / 1e6:.1f} MB over a base of {image.base_bytes / 1e6:.1f} MB"
            print(f"{job.service}: {image.reference} {image.digest}, {sizes}, {image.build_s:.0f} s", flush=True)
    except BuildFailed as exc:
        sys.exit(str(exc))
    (options.output / "images.json").write_text(json.dumps([asdict(image) for image in images], indent=2) + "\n")


if __name__ == "__main__":
    main()
