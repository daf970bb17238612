"""Put the parts together, listen, and leave in order."""

import asyncio
import functools
import signal
import time
from collections.abc import Sequence
from pathlib import Path

import grpc.aio
import structlog

from serving.modelserver import litert
from serving.modelserver.backend import LoadedModel
from serving.modelserver.batching import Scheduler
from serving.modelserver.config import Batching, ConfiguredModel
from serving.modelserver.cores import usable_cores
from serving.modelserver.flags import Flags, channel_arguments
from serving.modelserver.grpc_service import Services
from serving.modelserver.lifecycle import Models
from serving.modelserver.warmup import warm_up

logger = structlog.get_logger()

GRACE_S = 25.0
"""How long requests in flight may take after SIGTERM: under Kubernetes' default grace period of 30 seconds."""

MESSAGE_BYTES_MAX = 128 * 1024 * 1024
"""Largest request: some 800 images of 224 by 224; --grpc_channel_arguments raises it (TensorFlow Serving: 2 GiB)."""

CALLS_MAX = 1024
"""Requests that are in the server at once; gRPC refuses more with RESOURCE_EXHAUSTED."""


class CannotListen(Exception):
    """The port or the socket cannot be opened; the text names it."""


def workers_for(flags: Flags, batching: Batching, cores: int) -> int:
    """Return how many interpreters run at the same time: what was asked for, else as many as keep the cores busy."""
    asked = flags.tensorflow_inter_op_parallelism or batching.workers
    return asked or max(1, cores // max(1, flags.tensorflow_intra_op_parallelism))


def load_version(path: Path, instances: int, *, threads: int, warmup: bool, iterations: int) -> LoadedModel:
    """
    Load a version folder and warm it up.

    Raises:
        Refused: there is no usable model in it, or a warm-up request failed.
    """
    model = litert.load(path, instances, threads=threads)
    if warmup:
        warm_up(model, path, workers=instances, iterations=iterations)
    return model


async def run(flags: Flags, configured: Sequence[ConfiguredModel], batching: Batching) -> None:
    """
    Serve until SIGTERM or Ctrl-C.

    Raises:
        NothingToServe: no configured model can be loaded.
        CannotListen: the port is taken, or the socket's folder is not writable.
    """
    started = time.monotonic()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    workers = workers_for(flags, batching, usable_cores())
    models = _models(flags, configured, workers)
    scheduler = Scheduler(batching, workers)
    loading = asyncio.ensure_future(models.start())
    stopping = asyncio.ensure_future(stop.wait())
    try:
        # The port opens only now, so whoever can connect can predict.
        await asyncio.wait({loading, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if loading.done():
            loading.result()
            scheduler.start()
            await _serve(
                flags,
                Services(models, scheduler, typed_outputs=not flags.enable_serialization_as_tensor_content),
                stop,
                started,
            )
            scheduler.close()
    finally:
        loading.cancel()
        stopping.cancel()
        await models.close()


async def _serve(flags: Flags, services: Services, stop: asyncio.Event, started: float) -> None:
    """
    Answer until *stop*; then take no more, and finish what is in flight.

    Raises:
        CannotListen: an address cannot be bound.
    """
    options: list[tuple[str, int | str]] = [
        ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
        ("grpc.max_send_message_length", -1),
        # Two servers on one port would each get a part of the requests; a taken port is an error.
        ("grpc.so_reuseport", 0),
    ]
    server = grpc.aio.server(
        options=[*options, *channel_arguments(flags.grpc_channel_arguments)], maximum_concurrent_rpcs=CALLS_MAX
    )
    server.add_generic_rpc_handlers(services.handlers())
    for address in _addresses(flags):
        try:
            server.add_insecure_port(address)
        except RuntimeError as exc:
            raise CannotListen(f"cannot listen on {address}") from exc
    await server.start()
    logger.info("model_server_started", port=flags.port, duration_ms=round((time.monotonic() - started) * 1000))
    await stop.wait()
    logger.info("model_server_draining")
    await server.stop(GRACE_S)
    logger.info("model_server_stopped")


def _addresses(flags: Flags) -> list[str]:
    tcp = [f"{flags.listen_address}:{flags.port}"] if flags.port else []
    return [*tcp, *([f"unix:{flags.grpc_socket_path}"] if flags.grpc_socket_path else [])]


def _models(flags: Flags, configured: Sequence[ConfiguredModel], workers: int) -> Models:
    load = functools.partial(
        load_version,
        threads=max(1, flags.tensorflow_intra_op_parallelism),
        warmup=flags.enable_model_warmup,
        iterations=flags.num_request_iterations_for_warmup,
    )
    return Models(
        configured,
        load,
        workers,
        retries=flags.max_num_load_retries,
        retry_s=flags.load_retry_interval_micros / 1e6,
        poll_s=flags.file_system_poll_wait_seconds,
    )
