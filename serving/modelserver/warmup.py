"""
Warm-up: the requests that a version folder brings along are run before the version becomes available.

They are PredictionLogs in TFRecord form: length (8 bytes), masked CRC of the length, data, masked CRC of the data;
numbers little-endian.
"""

import struct
from collections.abc import Iterator
from pathlib import Path

import grpc
from google.protobuf.message import DecodeError

from serving.modelserver.backend import LoadedModel, RunFailed
from serving.modelserver.predict import read_question
from serving.modelserver.refusals import Refused, invalid_argument
from serving.tfs.protos import PredictionLog

FILE = Path("assets.extra") / "tf_serving_warmup_requests"
RECORDS_MAX = 1000
FILE_BYTES_MAX = 64 * 1024 * 1024
_HEADER = struct.Struct("<QI")
_CRC = struct.Struct("<I")


def warm_up(model: LoadedModel, folder: Path, *, workers: int, iterations: int) -> int:
    """
    Run every warm-up request of *folder* on every instance of *model*; no file, no warm-up.

    Returns:
        The number of records.

    Raises:
        Refused: the file is no TFRecord file, has too many records, or a record fails. The version must not be served
            then.
    """
    path = folder / FILE
    if not path.is_file():
        return 0
    if path.stat().st_size > FILE_BYTES_MAX:
        raise invalid_argument(f"the warm-up file is larger than {FILE_BYTES_MAX} bytes")
    count = 0
    for record in records(path.read_bytes()):
        count += 1
        if count > RECORDS_MAX:
            raise invalid_argument(f"Number of warmup records exceeds the maximum ({RECORDS_MAX})")
        _run(model, record, workers=workers, iterations=iterations)
    return count


def _run(model: LoadedModel, record: bytes, *, workers: int, iterations: int) -> None:
    """
    Run one record on every instance.

    Raises:
        Refused: it is not a request of this model, or fails.
    """
    try:
        log = PredictionLog.FromString(record)
    except DecodeError as exc:
        raise invalid_argument("Failed to parse warmup record") from exc
    if not log.HasField("predict_log"):
        raise Refused(grpc.StatusCode.UNIMPLEMENTED, "only Predict requests warm a LiteRT model up")
    question = read_question(log.predict_log.request, model)
    for worker in range(workers):
        for _ in range(iterations):
            try:
                model.run(worker, question.signature, question.inputs)
            except RunFailed as exc:
                raise invalid_argument(str(exc)) from exc


def records(content: bytes) -> Iterator[bytes]:
    """
    Yield the records of a TFRecord file.

    Raises:
        Refused: DATA_LOSS; the file is cut short, or a checksum differs.
    """
    at = 0
    while at < len(content):
        if at + _HEADER.size > len(content):
            raise _data_loss()
        length, check = _HEADER.unpack_from(content, at)
        if masked_crc(content[at : at + 8]) != check:
            raise _data_loss()
        at += _HEADER.size
        data = content[at : at + length]
        at += length
        if at + _CRC.size > len(content) or masked_crc(data) != _CRC.unpack_from(content, at)[0]:
            raise _data_loss()
        at += _CRC.size
        yield data


def _data_loss() -> Refused:
    return Refused(grpc.StatusCode.DATA_LOSS, "corrupted record. Please verify your warmup data is in TFRecord format.")


def masked_crc(data: bytes) -> int:
    """Return the checksum of *data* as TFRecord stores it: CRC-32C, rotated and offset."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _TABLE[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    crc ^= 0xFFFFFFFF
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def _table() -> list[int]:
    """Return CRC-32C's table, from the reversed Castagnoli polynomial."""
    table = []
    for byte in range(256):
        crc = byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
        table.append(crc)
    return table


_TABLE = _table()
