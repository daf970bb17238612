"""
Push what was built and tested to a registry, and write down what a deployment needs: `python k8s/delivery/push.py`.

Nothing is built here. Each archive that `make images` wrote goes to the registry byte for byte, so that the digest
that was tested is the digest that runs. The folder build/release then holds the packaged chart, images.yaml (values
that name every image by digest: staging and production are installed from these two), and subjects.json, what there is
to sign.
"""

# ruff: noqa: S603, T201 - a command for the terminal, which starts skopeo and helm

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "helm" / "healthguard"
_TRIES = 3
_COMMAND_S = 900


class NotPushed(Exception):
    """The release was not pushed; the message is one sentence that says why."""


@dataclass(frozen=True)
class Pushed:
    """An image in the registry."""

    service: str
    registry: str
    repository: str
    tag: str
    digest: str

    @property
    def name(self) -> str:
        """The image's name without tag or digest."""
        return f"{self.registry}/{self.repository}"


def plan(built: Sequence[dict[str, Any]], registry: str, prefix: str, tag: str) -> list[Pushed]:
    """
    Return where each image of images.json goes.

    Registries know lower-case names only, and an owner's name may have capitals.
    """
    return [
        Pushed(
            service=image["service"],
            registry=registry,
            repository=f"{prefix.lower()}/{image['service']}",
            tag=tag,
            digest=image["digest"],
        )
        for image in built
    ]


def copy_command(image: Pushed, archive: Path) -> list[str]:
    """Return the command that pushes *archive*; it fails rather than push another digest."""
    target = f"docker://{image.name}:{image.tag}"
    return ["skopeo", "copy", "--preserve-digests", f"--retry-times={_TRIES}", f"oci-archive:{archive}", target]


def inspect_command(image: Pushed) -> list[str]:
    """Return the command that asks the registry which digest the tag has."""
    return ["skopeo", "inspect", "--format={{.Digest}}", f"docker://{image.name}:{image.tag}"]


def values(images: Sequence[Pushed]) -> dict[str, Any]:
    """Return the chart's values that name every image by digest."""
    return {
        "images": {
            image.service: {
                "registry": image.registry,
                "repository": image.repository,
                "tag": image.tag,
                "digest": image.digest,
            }
            for image in images
        }
    }


def version_of(tag: str) -> str:
    """
    Return the chart's version, which the release's tag must name.

    Raises:
        NotPushed: it names another.
    """
    chart = re.search(r"^version: (\S+)$", (CHART / "Chart.yaml").read_text(), re.MULTILINE)
    version = chart[1] if chart else ""
    if tag != f"v{version}":
        raise NotPushed(f"the chart is {version}, and the tag is not v{version}: a release is tagged as what it is")
    return version


def run(command: Sequence[str]) -> str:
    """
    Run *command* and return what it wrote.

    Raises:
        NotPushed: it failed or took too long.
    """
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=_COMMAND_S)
    except subprocess.CalledProcessError as exc:
        raise NotPushed(f"{' '.join(command[:2])} failed: {exc.stderr.strip()[-800:]}") from exc
    except subprocess.TimeoutExpired as exc:
        raise NotPushed(f"{' '.join(command[:2])} took longer than {_COMMAND_S} s") from exc
    return done.stdout


def push(image: Pushed, archive: Path) -> None:
    """
    Push one image, and ask the registry for what it has.

    Raises:
        NotPushed: it is not the digest that was tested.
    """
    run(copy_command(image, archive))
    found = run(inspect_command(image)).strip()
    if found != image.digest:
        raise NotPushed(f"{image.name} has {found} in the registry, and {image.digest} was tested")
    print(f"{image.name}@{image.digest}", flush=True)


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0].strip())
    parser.add_argument("--registry", required=True, help="host of the registry; log in before")
    parser.add_argument("--prefix", required=True, help="path of the images there, such as owner/healthguard")
    parser.add_argument("--tag", required=True, help="the release, such as v0.1.0")
    parser.add_argument("--images", type=Path, default=ROOT / "build" / "images", help="folder that make images filled")
    parser.add_argument("--release", type=Path, default=ROOT / "build" / "release", help="folder to write")
    return parser.parse_args(arguments)


def main() -> None:
    """Push the images, then the chart, then write what a deployment needs."""
    options = parse()
    try:
        version = version_of(options.tag)
        built = json.loads((options.images / "images.json").read_text())
        images = plan(built, options.registry, options.prefix, options.tag)
        for image in images:
            push(image, options.images / f"{image.service}.tar")
        options.release.mkdir(parents=True, exist_ok=True)
        run(["helm", "package", str(CHART), "--destination", str(options.release)])
        package = options.release / f"healthguard-{version}.tgz"
        run(["helm", "push", str(package), f"oci://{options.registry}/{options.prefix.lower()}/charts"])
    except NotPushed as exc:
        sys.exit(str(exc))
    # JSON is YAML, and needs no library.
    (options.release / "images.yaml").write_text(json.dumps(values(images), indent=2) + "\n")
    subjects = [{"name": image.name, "digest": image.digest, "service": image.service} for image in images]
    (options.release / "subjects.json").write_text(json.dumps(subjects) + "\n")


if __name__ == "__main__":
    main()
