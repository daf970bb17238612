"""Write the requests that a model server runs before it says that a version is available."""

from pathlib import Path

import numpy as np
import tensorflow as tf
from tensorflow.core.framework.types_pb2 import DT_UINT8
from tensorflow_serving.apis.predict_pb2 import PredictRequest
from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog

from models.catalog import SIDE_PX

BATCH_SIZES = (1, 2, 4, 8, 16, 32)
"""Every batch size that a server may be configured to run."""

_GREY = 127


def write(path: Path, model: str, *, size: tuple[int, int] = (SIDE_PX, SIDE_PX), explained: bool = True) -> None:
    """
    Write a TFRecord of PredictionLog: every batch size of `serving_default`, one row of the other signatures.

    Images have height and width *size*; without *explained* the model has no signature of that name.

    Tensors give one value and leave its repetition to the reader, as TensorProto allows, so that the file stays at a
    few hundred bytes.
    """
    with tf.io.TFRecordWriter(str(path)) as writer:
        for rows in BATCH_SIZES:
            writer.write(_image_request(model, "serving_default", rows, size))
        if explained:
            writer.write(_image_request(model, "explain", 1, size))
        writer.write(_contract_request(model))


def _image_request(model: str, signature: str, rows: int, size: tuple[int, int]) -> bytes:
    request = PredictRequest()
    request.model_spec.name, request.model_spec.signature_name = model, signature
    image = request.inputs["image"]
    image.dtype = DT_UINT8
    for length in (rows, *size, 3):
        image.tensor_shape.dim.add().size = length
    image.int_val.append(_GREY)
    return _log(request)


def _contract_request(model: str) -> bytes:
    request = PredictRequest()
    request.model_spec.name, request.model_spec.signature_name = model, "contract"
    request.inputs["n"].CopyFrom(tf.make_tensor_proto(np.zeros(1, np.int32)))
    return _log(request)


def _log(request: PredictRequest) -> bytes:
    log = PredictionLog()
    log.predict_log.request.CopyFrom(request)
    return bytes(log.SerializeToString(deterministic=True))
