"""The official client stubs of TensorFlow Serving, as they are in the wheel."""

from serving.tfs.tensorflow_protos import tensorflow_protos

with tensorflow_protos():
    from tensorflow_serving.apis.model_service_pb2_grpc import ModelServiceStub  # type: ignore[import-untyped,unused-ignore]
    from tensorflow_serving.apis.prediction_service_pb2_grpc import (  # type: ignore[import-untyped,unused-ignore]
        PredictionServiceStub,
    )

__all__ = ["ModelServiceStub", "PredictionServiceStub"]
