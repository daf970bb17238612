"""The files that a model server reads at its start, in TensorFlow Serving's text form, and the flags that name them."""

import math
from pathlib import PurePosixPath

from serving.operator.spec import Batching, ServedModelSpec, Version

MODELS = PurePosixPath("/models")
"""Where a server finds versions: /models/<model>/<version>."""

CONFIG = PurePosixPath("/etc/model-server")

_MODELS_FILE, _BATCHING_FILE, _MONITORING_FILE = "models.config", "batching.config", "monitoring.config"

# Lets clients that connect by name find new pods; long enough that calls are not cut.
_CHANNEL_ARGUMENTS = "grpc.max_connection_age_ms=60000,grpc.max_connection_age_grace_ms=60000"


def files(model: str, spec: ServedModelSpec, version: Version | None = None) -> dict[str, str]:
    """Return the content of each file by its name, for one version; without one for the stable."""
    made = {_MODELS_FILE: _models(model, (version or spec.stable).version)}
    if spec.batching:
        made[_BATCHING_FILE] = _batching(spec.batching)
    if spec.runtime.name == "tensorflow-serving":
        made[_MONITORING_FILE] = 'prometheus_config { enable: true path: "/monitoring/prometheus/metrics" }\n'
    return made


def _models(model: str, version: int) -> str:
    # The version by number, never the newest: what is not named is not served, even if it lies there.
    return (
        "model_config_list {\n"
        "  config {\n"
        f'    name: "{model}"\n'
        f'    base_path: "{MODELS / model}"\n'
        '    model_platform: "tensorflow"\n'
        f"    model_version_policy {{ specific {{ versions: {version} }} }}\n"
        "  }\n"
        "}\n"
    )


def _batching(batching: Batching) -> str:
    values = {
        "max_batch_size": batching.max_batch_size,
        "batch_timeout_micros": batching.batch_timeout_micros,
        "max_enqueued_batches": batching.max_enqueued_batches,
        "num_batch_threads": batching.num_batch_threads,
    }
    return "".join(f"{name} {{ value: {value} }}\n" for name, value in values.items())


def flags(spec: ServedModelSpec, *, grpc: int, rest: int | None, ssl_config: PurePosixPath | None) -> list[str]:
    """
    Return the server's flags; those of the person come last, and none of them is one of these.

    Args:
        rest: the port of HTTP, which TensorFlow Serving's metrics need; none: it does not listen there.
        ssl_config: where the file with the certificate is; none: plain gRPC.
    """
    given = [
        f"--port={grpc}",
        f"--model_config_file={CONFIG / _MODELS_FILE}",
        f"--grpc_channel_arguments={_CHANNEL_ARGUMENTS}",
        # The folder is whole before the server starts: look once. A version that fails is told within seconds.
        "--file_system_poll_wait_seconds=0",
        "--max_num_load_retries=1",
        "--load_retry_interval_micros=1000000",
    ]
    if ssl_config:
        given.append(f"--ssl_config_file={ssl_config}")
    if spec.batching:
        given += ["--enable_batching=true", f"--batching_parameters_file={CONFIG / _BATCHING_FILE}"]
    cores = cores_of(str(spec.resources.limits.get("cpu", "")))
    if cores:
        # Left to itself a server counts the node's cores, and is throttled.
        given.append(f"--tensorflow_inter_op_parallelism={cores}")
    if spec.runtime.name == "tensorflow-serving":
        if rest:
            given += [f"--rest_api_port={rest}", f"--monitoring_config_file={CONFIG / _MONITORING_FILE}"]
        given += [f"--tensorflow_intra_op_parallelism={cores}"] if cores else []
    return [*given, *spec.runtime.args]


def cores_of(quantity: str) -> int:
    """Return a CPU quantity ("2", "1500m", "0.5") in whole cores, rounded up; 0 where it is none."""
    text, scale = (quantity[:-1], 1000) if quantity.endswith("m") else (quantity, 1)
    try:
        return math.ceil(float(text) / scale)
    except ValueError:
        return 0
