"""Put the parts together, listen, and leave in order."""

import asyncio
import functools
import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import grpc.aio
import structlog

from serving.modelserver import backends
from serving.modelserver.backends import LoadOptions
from serving.modelserver.batching import Scheduler
from serving.modelserver.config import Batching, ConfiguredModel
from serving.modelserver.cores import usable_cores
from serving.modelserver.flags import Flags, channel_arguments
from serving.modelserver.grpc_service import Services
from serving.modelserver.health import Health
from serving.modelserver.inference import Inference
from serving.modelserver.lifecycle import POLICIES, Labels, Models
from serving.modelserver.observer import Observer
from serving.modelserver.reload import follow
from serving.modelserver.tls import Certificates

if TYPE_CHECKING:
    from serving.modelserver.monitoring import Metrics
    from serving.modelserver.rest import RestServer

logger = structlog.get_logger()

GRACE_S = 25.0
"""How long requests in flight may take after SIGTERM: under Kubernetes' default grace period of 30 seconds."""

MESSAGE_BYTES_MAX = 128 * 1024 * 1024
"""Largest request: some 800 images of 224 by 224; --grpc_channel_arguments raises it (TensorFlow Serving: 2 GiB)."""

CALLS_MAX = 1024
"""Requests that are in the server at once; gRPC refuses more with RESOURCE_EXHAUSTED."""


LOAD_THREADS = 2


class CannotListen(Exception):
    """The port or the socket cannot be opened; the text names it."""


def workers_for(flags: Flags, batching: Batching, cores: int) -> int:
    """Return how many runs go on at the same time: what was asked for, else as many as keep the cores busy."""
    asked = flags.tensorflow_inter_op_parallelism or flags.tensorflow_session_parallelism or batching.workers
    return asked or max(1, cores // max(1, flags.tensorflow_intra_op_parallelism))


async def run(
    flags: Flags,
    configured: Sequence[ConfiguredModel],
    batching: Batching,
    certificates: Certificates | None = None,
    metrics: "Metrics | None" = None,
) -> None:
    """
    Serve until SIGTERM or Ctrl-C.

    Raises:
        NothingToServe: no configured model can be loaded.
        Refused: a label of the configuration points to a version that is not available.
        CannotListen: the port is taken, or the socket's folder is not writable.
    """
    started = time.monotonic()
    stop = _stop_signals(flags)
    observer = metrics or Observer()
    workers = workers_for(flags, batching, usable_cores())
    options = LoadOptions(flags, batching, workers, threads=max(1, flags.tensorflow_intra_op_parallelism))
    models = _models(flags, options, observer)
    scheduler = Scheduler(workers, observer)
    if metrics:
        metrics.attach(models, scheduler)
    inference = Inference(models, scheduler, observer, typed_outputs=not flags.enable_serialization_as_tensor_content)
    loading = asyncio.ensure_future(models.start(configured))
    stopping = asyncio.ensure_future(stop.wait())
    try:
        # The port opens only now, so whoever can connect can predict.
        await asyncio.wait({loading, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if loading.done():
            loading.result()
            scheduler.start()
            await _serve(flags, inference, certificates=certificates, metrics=metrics, stop=stop, started=started)
            scheduler.close()
    finally:
        loading.cancel()
        stopping.cancel()
        await models.close()


def _stop_signals(flags: Flags) -> asyncio.Event:
    """Return what is set when the process is told to end."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGINT, stop.set)
    if flags.tfs_quirks:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    else:
        loop.add_signal_handler(signal.SIGTERM, stop.set)
    return stop


async def _serve(
    flags: Flags,
    inference: Inference,
    *,
    certificates: Certificates | None,
    metrics: "Metrics | None",
    stop: asyncio.Event,
    started: float,
) -> None:
    """
    Answer until *stop*; then say so, wait until the clients have heard it, and finish what is in flight.

    Raises:
        CannotListen: an address cannot be bound.
    """
    server = _listening(flags, certificates)
    rest = _rest(flags, inference, metrics)
    health = Health(inference.models, frozen=flags.tfs_quirks)
    services = Services(inference, check_method=flags.enable_signature_method_name_check)
    server.add_generic_rpc_handlers(services.handlers())
    if flags.enable_grpc_healthcheck_service:
        server.add_generic_rpc_handlers([health.handler()])
    following = _following(flags, inference.models)
    await server.start()
    if rest:
        rest.start()
    logger.info("model_server_started", port=flags.port, duration_ms=round((time.monotonic() - started) * 1000))
    await stop.wait()
    logger.info("model_server_leaving")
    health.leave()
    # A second signal, from somebody who does not want to wait, is not waited for either.
    stop.clear()
    with suppress(TimeoutError):
        await asyncio.wait_for(stop.wait(), flags.drain_notice_seconds)
    logger.info("model_server_draining")
    await asyncio.gather(server.stop(GRACE_S), *([rest.stop()] if rest else []))
    following.cancel()
    logger.info("model_server_stopped")


def _listening(flags: Flags, certificates: Certificates | None) -> grpc.aio.Server:
    """
    Make a gRPC server and bind its addresses.

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
        options=[*options, *channel_arguments(flags.grpc_channel_arguments)],
        maximum_concurrent_rpcs=flags.grpc_max_threads or CALLS_MAX,
    )
    for address in _addresses(flags):
        try:
            if certificates is None:
                server.add_insecure_port(address)
            else:
                server.add_secure_port(address, certificates.credentials())
        except RuntimeError as exc:
            raise CannotListen(f"cannot listen on {address}") from exc
    return server


def _rest(flags: Flags, inference: Inference, metrics: "Metrics | None") -> "RestServer | None":
    """
    Open the REST port, if there is to be one; only then its HTTP server is imported.

    Raises:
        CannotListen: the port cannot be bound.
    """
    if not flags.rest_api_port:
        return None
    from serving.modelserver.rest import RestServer  # noqa: PLC0415

    try:
        return RestServer(flags, inference, metrics, grace_s=GRACE_S)
    except OSError as exc:
        raise CannotListen(f"cannot listen on {flags.listen_address}:{flags.rest_api_port}") from exc


def _addresses(flags: Flags) -> list[str]:
    tcp = [f"{flags.listen_address}:{flags.port}"] if flags.port else []
    return [*tcp, *([f"unix:{flags.grpc_socket_path}"] if flags.grpc_socket_path else [])]


def _following(flags: Flags, models: Models) -> asyncio.Future[None]:
    """Follow the configuration file, if that was asked for."""
    every_s = flags.model_config_file_poll_wait_seconds
    if not every_s:
        return asyncio.get_running_loop().create_future()
    return asyncio.ensure_future(follow(models, Path(flags.model_config_file), every_s))


def _models(flags: Flags, options: LoadOptions, observer: Observer) -> Models:
    labels = Labels.NEW if flags.allow_version_labels_for_unavailable_models else Labels.NONE
    return Models(
        functools.partial(backends.load, options=options, observer=observer),
        retries=flags.max_num_load_retries,
        retry_s=flags.load_retry_interval_micros / 1e6,
        poll_s=flags.file_system_poll_wait_seconds,
        load_threads=flags.num_load_threads or LOAD_THREADS,
        unload_threads=flags.num_unload_threads or 1,
        policy=POLICIES[flags.aspired_version_policy],
        labels_allowed=Labels.ANY if flags.force_allow_any_version_labels_for_unavailable_models else labels,
    )
