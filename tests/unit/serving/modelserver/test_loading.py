"""Which runtime serves a folder, what a folder says of its own batching, and that its warm-up is told."""

from pathlib import Path
from typing import Any

import grpc
import pytest

from serving.modelserver import backends, litert
from serving.modelserver.backends import LoadOptions, choose
from serving.modelserver.config import Batching
from serving.modelserver.flags import Flags
from serving.modelserver.observer import Observer
from serving.modelserver.refusals import Refused

ARITHMETIC = Path(__file__).parents[3] / "contract" / "tfs" / "fixtures" / "arithmetic.tflite"
BASE = "/models/m"


@pytest.mark.parametrize(
    ("saved_model", "tflite", "tensorflow", "prefer_tflite", "expected"),
    [
        (True, True, True, False, "tensorflow"),
        (True, True, True, True, "litert"),
        (True, True, False, False, "litert"),
        (True, False, True, False, "tensorflow"),
        (True, False, True, True, "tensorflow"),
        (False, True, True, False, "litert"),
        (False, True, False, False, "litert"),
    ],
    ids=[
        "both files: TensorFlow, as the original",
        "LiteRT is preferred",
        "TensorFlow is not installed",
        "only a SavedModel",
        "LiteRT is preferred but not there",
        "only a LiteRT model",
        "only a LiteRT model, no TensorFlow",
    ],
)
def test_choose_follows_the_folder_and_the_flag(
    saved_model: bool, tflite: bool, tensorflow: bool, prefer_tflite: bool, expected: str
) -> None:
    """The SavedModel wins where TensorFlow can run it and LiteRT is not preferred."""
    found = choose(saved_model=saved_model, tflite=tflite, tensorflow=tensorflow, prefer_tflite=prefer_tflite)
    assert found == expected


@pytest.mark.parametrize(
    ("saved_model", "tensorflow", "words"),
    [(True, False, "TensorFlow is not installed"), (False, True, "Could not find SavedModel")],
)
def test_choose_refuses_what_cannot_be_run(saved_model: bool, tensorflow: bool, words: str) -> None:
    """A folder that nothing here can run is NOT_FOUND, with the reason."""
    with pytest.raises(Refused, match=words) as caught:
        choose(saved_model=saved_model, tflite=False, tensorflow=tensorflow, prefer_tflite=False)
    assert caught.value.code is grpc.StatusCode.NOT_FOUND


class Ears(Observer):
    """Remembers how warm-ups ended."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, str]] = []

    def warmed_up(self, **event: Any) -> None:
        """Note the path and the status."""
        assert event["seconds"] >= 0
        self.heard.append((Path(event["model_path"]).name, event["status"]))


@pytest.fixture
def version(tmp_path: Path) -> Path:
    """Make a version folder."""
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "model.tflite").write_bytes(ARITHMETIC.read_bytes())
    return tmp_path / "1"


def options(batching: Batching | None = None, **flags: Any) -> LoadOptions:
    """Return what versions are loaded with."""
    return LoadOptions(Flags(model_base_path=BASE, prefer_tflite_model=True, **flags), batching or Batching(), 1)


def test_load_tells_how_the_warm_up_ended(version: Path) -> None:
    """A warm-up that went well, and one that fails the version, are each told; without warm-up nothing is."""
    ears = Ears()
    backends.load(version, options(), ears)
    (version / "assets.extra").mkdir()
    (version / "assets.extra" / "tf_serving_warmup_requests").write_bytes(b"nonsense")
    with pytest.raises(Refused):
        backends.load(version, options(), ears)
    backends.load(version, options(enable_model_warmup=False), ears)
    assert ears.heard == [("1", "OK"), ("1", "DATA_LOSS")]


def test_load_lets_a_model_go_whose_warm_up_fails(version: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not served does not stay in memory."""
    closed: list[object] = []

    def close(model: object) -> None:
        closed.append(model)

    monkeypatch.setattr(litert.LiteRtModel, "close", close)
    (version / "assets.extra").mkdir()
    (version / "assets.extra" / "tf_serving_warmup_requests").write_bytes(b"nonsense")
    with pytest.raises(Refused):
        backends.load(version, options(), Observer())
    assert len(closed) == 1


def test_load_reads_a_versions_own_batching(version: Path) -> None:
    """With the flag a version's own file counts, and none is no batching; without the flag the server's counts."""
    common = Batching(rows_max=32, enabled=True, workers=3)
    own = {"enable_batching": True, "enable_per_model_batching_parameters": True}
    assert backends.load(version, options(common, enable_batching=True), Observer()).batching == common
    assert backends.load(version, options(common, **own), Observer()).batching == Batching()
    (version / "batching_params.pbtxt").write_text("max_batch_size { value: 2 }")
    assert backends.load(version, options(common, **own), Observer()).batching.rows_max == 2
    (version / "batching_params.pbtxt").write_text("allowed_batch_sizes: 3")
    with pytest.raises(Refused, match="Last entry in allowed_batch_sizes must match max_batch_size"):
        backends.load(version, options(common, **own), Observer())
