"""
The command line: tensorflow_model_server's own flags.

Every flag of the original is known by name. One that this server does not honour is refused with the reason, unless it
asks for what this server does anyway; TensorFlow Serving itself prints its usage for an unknown flag and goes on
without it.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

POLICIES = ("availability_preserving", "resource_preserving")


class BadFlags(Exception):
    """A command line that cannot be honoured; the text names the flag."""


@dataclass(frozen=True)
class Flags:
    """The flags that are honoured, and their defaults, which are TensorFlow Serving's unless said otherwise."""

    port: int = 8500
    """TCP port of the gRPC API; 0 opens none."""

    listen_address: str = "0.0.0.0"  # noqa: S104 - TensorFlow Serving's fixed choice, which scripts rely on
    """Ours alone: the address to listen on. There is no authentication, so on a laptop this is 127.0.0.1."""

    grpc_socket_path: str = ""
    """A unix socket that the gRPC API listens on too; empty: none."""

    grpc_channel_arguments: str = ""
    """Comma-separated key=value pairs for the gRPC server, such as grpc.max_connection_age_ms=30000."""

    grpc_max_threads: int = 0
    """Calls that are in the server at once; 0: 1024 (the original has a thread for each, 4 per core)."""

    ssl_config_file: str = ""
    """An SSLConfig in text form: the gRPC API is TLS, and plaintext is refused."""

    rest_api_port: int = 0
    """TCP port of the REST API and of the metrics; 0 opens none."""

    rest_api_num_threads: int = 0
    """REST calls whose bodies are in the server at once, others wait; 0: 4 per core, as in the original."""

    rest_api_timeout_in_ms: int = 30_000
    """How long a REST call may take, milliseconds."""

    rest_api_enable_cors_support: bool = False
    """Answer with CORS headers."""

    model_config_file: str = ""
    """A ModelServerConfig in text form: which models are served, from where."""

    model_config_file_poll_wait_seconds: int = 0
    """How often the configuration file is read again, seconds; 0: never."""

    model_name: str = "default"
    """The name of the one model, where no configuration file is given."""

    model_base_path: str = ""
    """The folder of the one model, whose children are version folders; without effect beside a configuration file."""

    allow_version_labels_for_unavailable_models: bool = False
    """Let a new label point to a version that is not available yet."""

    force_allow_any_version_labels_for_unavailable_models: bool = False
    """Let any label point to a version that is not available."""

    aspired_version_policy: str = POLICIES[0]
    """Ours alone: availability_preserving loads the new version first, resource_preserving unloads the old one."""

    enable_batching: bool = False
    """Run requests together that wait at the same time."""

    batching_parameters_file: str = ""
    """BatchingParameters in text form; only with --enable_batching."""

    enable_per_model_batching_parameters: bool = False
    """Read each version folder's batching_params.pbtxt; only with --enable_batching."""

    num_load_threads: int = 0
    """Versions that load at the same time; 0: 2 (the original loads them one by one, in the way of everything else)."""

    num_unload_threads: int = 0
    """Versions that unload at the same time; 0: 1."""

    max_num_load_retries: int = 5
    """How often a version that failed to load is tried again."""

    load_retry_interval_micros: int = 60_000_000
    """How long to wait between two tries, microseconds."""

    file_system_poll_wait_seconds: int = 1
    """How often base paths are looked at for new versions, seconds; 0: once."""

    enable_model_warmup: bool = True
    """Run the warm-up requests of a version before it becomes available."""

    num_request_iterations_for_warmup: int = 0
    """How often each warm-up request runs; 0: once."""

    enable_serialization_as_tensor_content: bool = False
    """Answer with raw bytes in place of typed lists."""

    enable_signature_method_name_check: bool = False
    """Refuse Classify and Regress on signatures whose method name is another."""

    enable_grpc_healthcheck_service: bool = True
    """Serve grpc.health.v1; the original's default is false, which leaves Kubernetes' gRPC probes without an answer."""

    monitoring_config_file: str = ""
    """A MonitoringConfig in text form: metrics at a path of the REST port."""

    prefer_tflite_model: bool = False
    """Serve model.tflite with LiteRT even where TensorFlow is installed and the folder has a SavedModel."""

    saved_model_tags: str = "serve"
    """Comma-separated tags of the graph to load from a SavedModel."""

    per_process_gpu_memory_fraction: float = 0.0
    """Share of the GPU's memory that TensorFlow takes, 0 to 1; 0: it grows as needed."""

    tensorflow_session_parallelism: int = 0
    """Runs that go on at the same time; not together with the two below."""

    tensorflow_intra_op_parallelism: int = 0
    """Threads within one run; 0 is 1, since one single-threaded run per core is the fastest."""

    tensorflow_inter_op_parallelism: int = 0
    """Runs that go on at the same time; 0: as many as the cores that this process may use."""

    drain_notice_seconds: int = 2
    """Ours alone: how long after SIGTERM requests are still taken, while the health service already says no."""

    tfs_quirks: bool = False
    """Ours alone, for tests: suffer as the original does. SIGTERM is ignored, and health never changes after start."""

    log_level: str = "INFO"
    """Ours alone: DEBUG, INFO or WARNING."""

    @property
    def warmup_iterations(self) -> int:
        """How often each warm-up request runs."""
        return max(1, self.num_request_iterations_for_warmup)


@dataclass(frozen=True)
class Unsupported:
    """A flag of the original that is not honoured; the values in *accepted* ask for what this server does anyway."""

    reason: str
    accepted: tuple[str, ...] = ()


UNSUPPORTED: Mapping[str, Unsupported] = {
    "enable_profiler": Unsupported("there is no profiler service", ("false", "0")),
    "flagfile": Unsupported("flags are given on the command line"),
    "flush_filesystem_caches": Unsupported("the page cache is the kernel's", ("false", "0")),
    "mixed_precision": Unsupported("graphs run as they were exported", ("",)),
    "num_tflite_interpreters_per_pool": Unsupported("each worker has one interpreter", ("1",)),
    "num_tflite_pools": Unsupported("--tensorflow_inter_op_parallelism sets the number of interpreters"),
    "platform_config_file": Unsupported("the flags of batching and sessions say the same"),
    "remove_unused_fields_from_bundle_metagraph": Unsupported("no such fields are kept", ("true", "1")),
    "skip_initialize_tpu": Unsupported("there is no TPU support", ("true", "1")),
    "tensorflow_session_config_file": Unsupported("the flags of parallelism and GPU memory say the same"),
    "thread_pool_factory_config_file": Unsupported("each worker has one thread"),
    "use_alts_credentials": Unsupported("--ssl_config_file is the only transport security", ("false", "0")),
    "xla_cpu_compilation_enabled": Unsupported("XLA makes these networks slower on CPUs", ("false", "0")),
    "xla_gpu_compilation_enabled": Unsupported("graphs are not compiled", ("false", "0")),
}

_NUMBER = re.compile(r"-?[0-9]{1,9}|2147483647")
"""A number that gRPC's channel arguments hold: 32 bits, the largest of which stands for no limit."""

_TYPES = {field.name: type(field.default) for field in fields(Flags)}
_TRUE, _FALSE = {"", "true", "t", "1"}, {"false", "f", "0"}
_WANTED = {bool: "true or false", int: "a whole number", float: "a number", str: "a value"}


def parse(arguments: Sequence[str]) -> Flags:
    """
    Read `--name=value` arguments; a bare `--name` sets a truth value, and the last of a name counts.

    Raises:
        BadFlags: a flag that is unknown, not honoured, without a fitting value, or at odds with another.
    """
    given: dict[str, object] = {}
    for argument in arguments:
        name, equals, text = argument.removeprefix("--").partition("=")
        if argument.startswith("--") and name in UNSUPPORTED:
            _check_unsupported(name, text if equals else "true")
            continue
        if not argument.startswith("--") or name not in _TYPES:
            raise BadFlags(f"unknown argument {argument.partition('=')[0]}; see --help")
        given[name] = _value(name, text, bare=not equals)
    flags = Flags(**given)  # type: ignore[arg-type]  # each value was made with the type of its field
    _check(flags)
    return flags


def _check_unsupported(name: str, text: str) -> None:
    """
    Pass a flag that asks for what this server does anyway.

    Raises:
        BadFlags: it asks for something else.
    """
    flag = UNSUPPORTED[name]
    if text.lower() not in flag.accepted:
        raise BadFlags(f"this server does not honour --{name}: {flag.reason}")


def _value(name: str, text: str, *, bare: bool) -> object:
    """
    Turn the text of one flag into its type.

    Raises:
        BadFlags: it does not fit.
    """
    kind = _TYPES[name]
    if kind is bool and text.lower() in _TRUE | _FALSE:
        return text.lower() in _TRUE
    if kind is int and text.isascii() and text.isdigit() and len(text) < 19:
        return int(text)
    if kind is str and not bare:
        return text
    if kind is float and (number := _number(text)) is not None:
        return number
    raise BadFlags(f"--{name} needs {_WANTED[kind]}")


def _number(text: str) -> float | None:
    """Return a finite number, or None."""
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _check(flags: Flags) -> None:
    """
    Refuse flags that contradict each other, or are out of range.

    Raises:
        BadFlags: naming the flags.
    """
    wrong = {
        "--model_base_path is required without --model_config_file": not (
            flags.model_config_file or flags.model_base_path
        ),
        "--model_config_file_poll_wait_seconds was given without --model_config_file": bool(
            flags.model_config_file_poll_wait_seconds and not flags.model_config_file
        ),
        "--batching_parameters_file was given without --enable_batching": bool(
            flags.batching_parameters_file and not flags.enable_batching
        ),
        "--enable_per_model_batching_parameters was given without --enable_batching": (
            flags.enable_per_model_batching_parameters and not flags.enable_batching
        ),
        "--port=0 opens no port: give --grpc_socket_path": flags.port == 0 and not flags.grpc_socket_path,
        "--port is above 65535": flags.port > 65535,
        "--rest_api_port is above 65535": flags.rest_api_port > 65535,
        "--rest_api_port cannot be the same as --port": 0 < flags.port == flags.rest_api_port,
        "--monitoring_config_file needs --rest_api_port": bool(
            flags.monitoring_config_file and not flags.rest_api_port
        ),
        "--rest_api_timeout_in_ms must be at least 1": flags.rest_api_timeout_in_ms < 1,
        "--log_level is DEBUG, INFO or WARNING": flags.log_level not in ("DEBUG", "INFO", "WARNING"),
        "--grpc_socket_path is longer than a unix socket may be": (
            not flags.grpc_socket_path.isprintable() or len(flags.grpc_socket_path) > 100
        ),
        f"--aspired_version_policy is {' or '.join(POLICIES)}": flags.aspired_version_policy not in POLICIES,
        "--per_process_gpu_memory_fraction is between 0 and 1": not 0 <= flags.per_process_gpu_memory_fraction <= 1,
        "--tensorflow_session_parallelism excludes --tensorflow_intra_op_parallelism and "
        "--tensorflow_inter_op_parallelism": bool(
            flags.tensorflow_session_parallelism
            and (flags.tensorflow_intra_op_parallelism or flags.tensorflow_inter_op_parallelism)
        ),
    }
    for text, holds in wrong.items():
        if holds:
            raise BadFlags(text)
    channel_arguments(flags.grpc_channel_arguments)


def channel_arguments(text: str) -> list[tuple[str, int | str]]:
    """
    Split --grpc_channel_arguments; a value that is a number is passed as one.

    Raises:
        BadFlags: a part is not key=value.
    """
    pairs: list[tuple[str, int | str]] = []
    for part in filter(None, text.split(",")):
        key, equals, value = part.partition("=")
        if not key or not equals or not value:
            raise BadFlags("--grpc_channel_arguments is key=value,key=value")
        pairs.append((key, int(value) if _NUMBER.fullmatch(value) else value))
    return pairs


def usage() -> str:
    """Return the help text: every flag with its default, and those that are not honoured with the reason."""
    honoured = [f"  --{field.name}={_shown(field.default)}" for field in fields(Flags)]
    refused = [f"  --{name}: {flag.reason}" for name, flag in UNSUPPORTED.items()]
    return "\n".join(["usage: python -m serving.modelserver --name=value …", *honoured, "not honoured:", *refused])


def _shown(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
