"""Warm-up files are TFRecords of requests; anything else fails the version."""

from pathlib import Path

import numpy as np
import pytest

from serving.modelserver.refusals import Refused
from serving.modelserver.warmup import masked_crc, records, warm_up
from serving.tfs.protos import PredictionLog, PredictLog, PredictRequest
from serving.tfs.tensors import from_array
from tests.unit.serving.modelserver.fakes import FakeModel


def tf_record(data: bytes) -> bytes:
    """Return one TFRecord."""
    length = len(data).to_bytes(8, "little")
    return length + masked_crc(length).to_bytes(4, "little") + data + masked_crc(data).to_bytes(4, "little")


def write(folder: Path, *contents: bytes) -> None:
    """Write a warm-up file of records."""
    (folder / "assets.extra").mkdir()
    (folder / "assets.extra" / "tf_serving_warmup_requests").write_bytes(b"".join(map(tf_record, contents)))


def predict_log(*values: float) -> bytes:
    """Return a good warm-up record."""
    request = PredictRequest(inputs={"x": from_array(np.array(values, np.float32))})
    return PredictionLog(predict_log=PredictLog(request=request)).SerializeToString()


def test_checksums_are_tfrecords() -> None:
    """The checksum of nothing and of the standard text are the published ones (CRC-32C, masked)."""

    def mask(crc: int) -> int:
        return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF

    assert masked_crc(b"") == mask(0)
    assert masked_crc(b"123456789") == mask(0xE3069283)


def test_records_come_in_their_order() -> None:
    """Every record is returned as it was written, empty ones too."""
    assert list(records(tf_record(b"one") + tf_record(b"") + tf_record(b"two"))) == [b"one", b"", b"two"]


GOOD = tf_record(b"some data")


@pytest.mark.parametrize(
    "content",
    [
        b"no record",
        GOOD[:-1],
        GOOD[:14],
        GOOD[:5],
        GOOD[:-1] + b"\x00",
        GOOD[:13] + b"x" + GOOD[14:],
        b"\xff" + GOOD[1:],
        GOOD + b"more",
    ],
    ids=["text", "cut", "cut in the data", "cut in the header", "checksum", "data", "length", "tail"],
)
def test_records_refuse_damage(content: bytes) -> None:
    """A damaged file is DATA_LOSS, never a shorter list."""
    with pytest.raises(Refused, match="TFRecord"):
        list(records(content))


def test_warm_up_runs_every_record_on_every_instance(tmp_path: Path) -> None:
    """Two records, two workers, two rounds: eight runs."""
    write(tmp_path, predict_log(1), predict_log(2, 3))
    model = FakeModel()
    assert warm_up(model, tmp_path, workers=2, iterations=2) == 2
    assert model.runs == [[1]] * 4 + [[2, 3]] * 4


def test_warm_up_without_a_file_is_none(tmp_path: Path) -> None:
    """A version without the file is served cold."""
    assert warm_up(FakeModel(), tmp_path, workers=1, iterations=1) == 0


@pytest.mark.parametrize(
    ("contents", "words"),
    [
        ([b"\xff\xff"], "parse"),
        ([PredictionLog().SerializeToString()], "only Predict"),
        ([predict_log(1)] * 1001, "exceeds the maximum"),
    ],
    ids=["no message", "another kind", "too many"],
)
def test_warm_up_refuses(tmp_path: Path, contents: list[bytes], words: str) -> None:
    """What is not a bounded list of Predict requests fails the version."""
    write(tmp_path, *contents)
    with pytest.raises(Refused, match=words):
        warm_up(FakeModel(), tmp_path, workers=1, iterations=1)
