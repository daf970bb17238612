"""Import a model: recognise it, have it built, check what was built, and put it in place by one rename."""

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import models
from models import artifact, verification
from models.importing.documents import TOLERANCE
from models.importing.formats import Format, recognise
from models.importing.request import CannotImport, Request

ROOT = Path(models.__file__).parents[1]
BUILD_S_MAX = 1800.0
_LAST_WORDS = 500

Say = Callable[[str], None]


@dataclass(frozen=True)
class Imported:
    """
    A version that is in place.

    `difference` is the largest of its scores from the source's, `between_files` that of any output between SavedModel
    and LiteRT file, None where there is one file. `manifest` is the file that serves it, or None where the model has
    one already and a person must add the version.
    """

    folder: Path
    digest: str
    format: Format
    difference: float
    between_files: float | None
    limitations: list[str]
    manifest: Path | None


def run(request: Request, out: Path, say: Say, *, python: Path | None = None) -> Imported:
    """
    Import a model into the folder of models *out*.

    Args:
        python: an interpreter that has TensorFlow; found where it is not given.

    Raises:
        CannotImport: it cannot become a version, or not here; nothing is left behind.
    """
    request.check()
    format_ = recognise(Path(request.source))
    home = out / request.name
    target = home / str(request.version)
    if target.exists():
        raise CannotImport(f"{target} is there already, and versions are never changed: choose another --version.")
    with _making(home) as made:
        difference, between, limits = _built(request, format_, made, say, python)
        say("Checking the version")
        _check(made)
        artifact.write_sums(made)
        digest = artifact.digest(made)
        made.rename(target)
    return Imported(target, digest, format_, difference, between, limits, _manifest(request, home, digest))


def next_version(out: Path, name: str) -> int:
    """Return the first number that no version of a model has."""
    taken = [int(path.name) for path in (out / name).glob("*") if path.name.isdecimal()]
    return max(taken, default=0) + 1


@contextmanager
def _making(home: Path) -> Iterator[Path]:
    """Give a place to make a version in, on the file system where it will stay; nothing is left of what failed."""
    existed = home.exists()
    home.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(dir=home, prefix=".making-") as scratch:
            yield Path(scratch, "made")
    finally:
        if not existed and not any(home.iterdir()):
            home.rmdir()


def _built(
    request: Request, format_: Format, made: Path, say: Say, python: Path | None
) -> tuple[float, float | None, list[str]]:
    source = Path(request.source)
    files = artifact.files(source) if format_ == "saved_model" else [source]
    given = {
        "request": request.to_json(),
        "format": format_,
        "source_digest": artifact.digest(source) if format_ == "saved_model" else f"sha256:{artifact.sha256(source)}",
        "source_bytes": sum(path.stat().st_size for path in files),
        "made": str(made),
    }
    done = _in_a_process(given, say, Path(sys.executable) if format_ == "tflite" else python or find_python())
    return done["difference"], done["between_files"], done["limitations"]


def find_python() -> Path:
    """
    Return an interpreter that has TensorFlow: this one, or that of the training environment beside us.

    Raises:
        CannotImport: there is none.
    """
    if importlib.util.find_spec("keras") is not None:
        return Path(sys.executable)
    beside = ROOT / ".venv-train" / "bin" / "python"
    if beside.exists():
        return beside
    raise CannotImport(
        "This format needs TensorFlow, which is not installed here. In a checkout, `make test-deps` makes an "
        "environment that has it; elsewhere, install the extra `train` into one and name its python with --python."
    )


def _in_a_process(given: dict[str, Any], say: Say, python: Path) -> dict[str, Any]:
    """
    Have the version built in a process of its own, which has the framework for it, and bounds.

    Raises:
        CannotImport: it refused, broke or took too long.
    """
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "2", "CUDA_VISIBLE_DEVICES": "-1"}
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as words:
        process = subprocess.Popen(  # noqa: S603 - our own command line, no shell
            [python, "-m", "models.importing.worker"],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=words,
            text=True,
        )
        late = threading.Event()

        def end() -> None:
            late.set()
            process.kill()

        timer = threading.Timer(BUILD_S_MAX, end)
        timer.start()
        try:
            return _told(process, json.dumps(given), say)
        except (_Silent, BrokenPipeError) as error:
            if late.is_set():
                raise CannotImport(f"The import was ended after {BUILD_S_MAX:.0f} seconds.") from error
            words.seek(0)
            last = words.read()[-_LAST_WORDS:].strip()
            raise CannotImport(
                f"The process that reads the model ended early (exit code {process.wait()}). Its last words: {last}"
            ) from error
        finally:
            timer.cancel()
            process.kill()
            process.wait()
            for pipe in filter(None, (process.stdin, process.stdout)):
                pipe.close()


class _Silent(Exception):
    """A process ended without a result."""


def _told(process: "subprocess.Popen[str]", given: str, say: Say) -> dict[str, Any]:
    assert process.stdin is not None  # noqa: S101 - both are pipes
    assert process.stdout is not None  # noqa: S101
    process.stdin.write(given)
    process.stdin.close()
    for line in process.stdout:
        event = json.loads(line)
        if "refused" in event:
            raise CannotImport(event["refused"])
        if "done" in event:
            found: dict[str, Any] = event["done"]
            return found
        say(event["say"])
    raise _Silent


def _check(made: Path) -> None:
    """
    Hold what was made to what every version is held to.

    Raises:
        CannotImport: it would not be served.
    """
    try:
        verification.check_contents(made)
    except artifact.ArtifactError as error:
        raise CannotImport(f"What was made is not a version: {error}.") from error


def _manifest(request: Request, home: Path, digest: str) -> Path | None:
    path = home / artifact.MANIFEST_NAME
    if path.exists():
        return None
    text = artifact.manifest_text(request.name, request.version, digest, difference_max=TOLERANCE)
    path.write_text(text, encoding="utf-8")
    return path
