"""
TensorFlow: `saved_model.pb` of a version folder, TF1, TF2 and Keras models alike, one session for all workers.

Imported only where TensorFlow is installed. The session is of TensorFlow 1, as in TensorFlow Serving: it runs shapes
that a signature does not declare, where the Python functions of TensorFlow 2 refuse or change them. Each worker runs
the graph in its own thread (`inter_op_thread_pool = -1`), since TensorFlow's pools are one per process, and with a pool
of one thread all workers would queue for it. So workers share the weights and scale with the cores without processes.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import structlog
from google.protobuf.message import DecodeError

from serving.modelserver.backend import RunFailed
from serving.modelserver.backends import LoadOptions
from serving.modelserver.refusals import Refused
from serving.tfs.signatures import Signature, from_proto
from serving.tfs.tensors import Array, BadTensor

# Before the import: TensorFlow's own lines are no JSON, and go to standard error.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import tensorflow as tf
from tensorflow.core.protobuf import config_pb2
from tensorflow.python.saved_model.loader_impl import SavedModelLoader  # type: ignore[import-not-found]

logger = structlog.get_logger()
v1 = tf.compat.v1

VARIABLES = Path("variables") / "variables.index"

CALLER_THREAD = -1
"""RunOptions.inter_op_thread_pool: run every operation in the thread that called."""

_CODES = {code.value[0]: code for code in grpc.StatusCode}

_Call = Callable[..., Sequence[Array]]


class TensorFlowModel:
    """A loaded SavedModel; see backend.LoadedModel."""

    # Upstream's own clients send other shapes than declared and rely on being answered; the rank is what kernels
    # choke on.
    exact_shapes = False
    platform = "tensorflow"

    def __init__(self, session: Any, signatures: Mapping[str, Signature]) -> None:
        """Prepare a call for each signature of the model in *session*, which is this model's from now on."""
        self._session = session
        self.signatures = signatures
        self._calls: dict[str, _Call] = {name: _callable(session, each) for name, each in signatures.items()}

    def run(self, worker: int, signature: str, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        """
        Run *signature* in the calling thread; any number of threads may at the same time.

        Raises:
            RunFailed: TensorFlow refused, with its code and text.
        """
        spec = self.signatures[signature]
        try:
            outputs = self._calls[signature](*(inputs[alias] for alias in spec.inputs))
        except tf.errors.OpError as exc:
            raise RunFailed(exc.message, code=_code(exc)) from exc
        # A scalar comes out as a numpy number, not as an array.
        return {alias: np.asarray(array) for alias, array in zip(spec.outputs, outputs, strict=True)}

    def close(self) -> None:
        """Give the memory back; TensorFlow keeps a part of it for the next model."""
        self._session.close()


def load(folder: Path, options: LoadOptions) -> TensorFlowModel:
    """
    Load the SavedModel of a version folder.

    Raises:
        Refused: there is none, it has no such tags, it does not load, or no signature of it can be served.
    """
    session = v1.Session(graph=tf.Graph(), config=_config(options))
    try:
        meta_graph = _restored(session, folder, options.flags.saved_model_tags.split(","))
        return TensorFlowModel(session, _signatures(meta_graph.signature_def))
    except Refused:
        session.close()
        raise
    except Exception as exc:
        session.close()
        raise _not_loaded(exc) from exc


def _restored(session: Any, folder: Path, tags: Sequence[str]) -> Any:
    """
    Load the graph with *tags* into *session* and return its MetaGraphDef.

    In the loader's three steps, since its `load` insists on a checkpoint for whatever has a saver: a frozen graph has
    one and needs none, and TensorFlow Serving loads it.
    """
    loader = SavedModelLoader(str(folder))
    with session.graph.as_default():
        saver, _ = loader.load_graph(session.graph, tags)
        if (folder / VARIABLES).exists():
            loader.restore_variables(session, saver)
        loader.run_init_ops(session, tags)
    return loader.get_meta_graph_def_from_tags(tags)


def _not_loaded(exc: Exception) -> Refused:
    """Say why a SavedModel does not load; TensorFlow has an exception of its own for each way."""
    if isinstance(exc, tf.errors.OpError):
        return Refused(_code(exc), f"Could not load the SavedModel: {exc.message}")
    if isinstance(exc, OSError):
        return Refused(grpc.StatusCode.NOT_FOUND, "Could not find SavedModel .pb or .pbtxt in the version folder")
    if isinstance(exc, RuntimeError):
        return Refused(grpc.StatusCode.NOT_FOUND, "Could not find meta graph def matching supplied tags")
    if isinstance(exc, (DecodeError, ValueError, KeyError)):
        return Refused(grpc.StatusCode.INVALID_ARGUMENT, "saved_model.pb is no usable SavedModel")
    return Refused(grpc.StatusCode.INTERNAL, "the SavedModel failed to load")


def _config(options: LoadOptions) -> Any:
    """Return how a session uses cores and GPUs."""
    config = v1.ConfigProto(intra_op_parallelism_threads=options.threads)
    if options.flags.per_process_gpu_memory_fraction > 0:
        config.gpu_options.per_process_gpu_memory_fraction = options.flags.per_process_gpu_memory_fraction
    else:
        # TensorFlow takes nearly the whole GPU otherwise, and the second model finds nothing left.
        config.gpu_options.allow_growth = True
    # A model that names a device this machine has not runs on what it has, as TensorFlow Serving has it.
    config.allow_soft_placement = True
    return config


def _signatures(protos: Mapping[str, Any]) -> dict[str, Signature]:
    """
    Return the signatures that can be served; TensorFlow 2 keeps one for its loaders that has no tensors, for example.

    Raises:
        Refused: INVALID_ARGUMENT; there is none.
    """
    found = {}
    for name, proto in sorted(protos.items()):
        signature = _signature(proto)
        if signature is None:
            logger.info("signature_not_served", signature=name)
        else:
            found[name] = signature
    if not found:
        raise Refused(grpc.StatusCode.INVALID_ARGUMENT, "the SavedModel has no signature that can be served")
    return found


def _signature(proto: Any) -> Signature | None:
    """Return a signature, or None where a part of it is no tensor of a type that we carry."""
    tensors = [*proto.inputs.values(), *proto.outputs.values()]
    if not proto.outputs or not all(info.name for info in tensors):
        return None
    try:
        return from_proto(proto)
    except BadTensor:
        return None


def _callable(session: Any, signature: Signature) -> _Call:
    """
    Return a function of the inputs, in the signature's order, that gives the outputs, in the signature's order.

    The session makes it once: `Session.run` would look all names up again for every request, and refuses shapes that
    the graph itself would run.
    """
    options = config_pb2.CallableOptions(  # type: ignore[attr-defined]  # the small messages have no such one
        feed=[spec.name for spec in signature.inputs.values()],
        fetch=[spec.name for spec in signature.outputs.values()],
    )
    options.run_options.inter_op_thread_pool = CALLER_THREAD
    call: _Call = session._make_callable_from_options(options)
    return call


def _code(exc: Any) -> grpc.StatusCode:
    return _CODES.get(int(exc.error_code), grpc.StatusCode.UNKNOWN)
