"""Foreign models, made once, and one product that serves all that was imported of them."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from models.importing import importer
from models.importing.importer import Imported
from models.importing.request import Request
from tests.integration.local.product import Up, start
from tests.training import PYTHON, ROOT

MADE_S_MAX = 500


@dataclass(frozen=True)
class Foreign:
    """The folder of foreign models, and what they answer by their own frameworks."""

    folder: Path
    expected: dict[str, Any]

    def pictures(self, side: int) -> list[Path]:
        """Return the pictures of a size, in the order of the answers."""
        return sorted(self.folder.glob(f"{side}-*.png"))


def request(folder: Path, file: str, **wishes: Any) -> Request:
    """Return a request for a file, of which only what is asked differs."""
    usual: dict[str, Any] = {
        "source": str(folder / file),
        "task": "binary",
        "labels": ("Negative", "Positive"),
        "name": "foreign",
        "version": 1,
        "title": "Foreign",
        "intended_use": "Tests.",
    }
    return Request(**usual | wishes)


def in_training(code: str, *arguments: str) -> Any:
    """Run *code* in the training environment and return what its last line of output says."""
    done = subprocess.run(
        [PYTHON, "-c", code, *arguments],
        cwd=ROOT,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2"},
        capture_output=True,
        text=True,
        timeout=MADE_S_MAX,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="session")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Foreign:
    """Make the foreign models."""
    folder = tmp_path_factory.mktemp("foreign") / "made"
    done = subprocess.run(
        [PYTHON, Path(__file__).with_name("foreign.py"), folder],
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2"},
        capture_output=True,
        text=True,
        timeout=MADE_S_MAX,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return Foreign(folder, json.loads((folder / "expected.json").read_text()))


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of models that imports go to."""
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="session")
def imported(foreign: Foreign, home: Path) -> dict[str, Imported]:
    """Import every format, each as a model of its own."""
    risk = {"task": "risk", "labels": ("LOW", "MEDIUM", "HIGH")}
    wishes: dict[str, dict[str, Any]] = {
        "vgg": {"file": "vgg.h5", "scaling": "unit"},
        "mobile": {"file": "mobile.keras", **risk},
        "saved": {"file": "saved", "scaling": "unit"},
        "float": {"file": "float.tflite", "scaling": "unit"},
        "int8": {"file": "int8.tflite"},
        "calibrated": {
            "file": "vgg.h5",
            "scaling": "unit",
            "explain": "occlusion",
            "calibrate": str(foreign.folder / "labelled"),
            "recommendations": {"Positive": "Look again."},
        },
    }

    def one(name: str) -> Imported:
        wish = dict(wishes[name])
        return importer.run(request(foreign.folder, wish.pop("file"), name=name, **wish), home, lambda _: None)

    with ThreadPoolExecutor(2) as pool:
        return dict(zip(wishes, pool.map(one, wishes), strict=True))


@pytest.fixture(scope="session")
def product(imported: dict[str, Imported], home: Path) -> Iterator[Up]:
    """Run `healthguard up` with the imported models: each has a manifest, and nothing else was said of it."""
    assert imported
    with (
        tempfile.TemporaryDirectory(prefix="hg-up-") as name,
        start(Path(name), "--free-ports", "--data-dir", f"{name}/data", "--models", str(home)) as found,
    ):
        yield found
        found.process.send_signal(signal.SIGINT)
        assert found.process.wait(60) == 0


def command(*arguments: str, stdin: str | None = None) -> "subprocess.CompletedProcess[str]":
    """Run a `healthguard models …` command to its end."""
    return subprocess.run(
        [sys.executable, "-m", "healthguard", "models", *arguments],
        cwd=ROOT,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=MADE_S_MAX,
        check=False,
    )
