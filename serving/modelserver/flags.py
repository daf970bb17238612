"""
The command line: tensorflow_model_server's own flags, those of them that this server honours.

TensorFlow Serving prints its usage for an unknown flag and then goes on without it; here a flag that is not honoured is
refused by name.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields


class BadFlags(Exception):
    """A command line that cannot be honoured; the text names the flag."""


@dataclass(frozen=True)
class Flags:
    """The flags and their defaults, which are TensorFlow Serving's."""

    port: int = 8500
    """TCP port of the gRPC API; 0 opens none."""

    listen_address: str = "0.0.0.0"  # noqa: S104 - TensorFlow Serving's fixed choice, which scripts rely on
    """Ours alone: the address to listen on. There is no authentication, so on a laptop this is 127.0.0.1."""

    grpc_socket_path: str = ""
    """A unix socket that the gRPC API listens on too; empty: none."""

    grpc_channel_arguments: str = ""
    """Comma-separated key=value pairs for the gRPC server, such as grpc.max_connection_age_ms=30000."""

    model_config_file: str = ""
    """A ModelServerConfig in text form: which models are served, from where."""

    model_name: str = "default"
    """The name of the one model, where no configuration file is given."""

    model_base_path: str = ""
    """The folder of the one model, whose children are version folders."""

    enable_batching: bool = False
    """Run requests together that wait at the same time."""

    batching_parameters_file: str = ""
    """BatchingParameters in text form; only with --enable_batching."""

    max_num_load_retries: int = 5
    """How often a version that failed to load is tried again."""

    load_retry_interval_micros: int = 60_000_000
    """How long to wait between two tries, microseconds."""

    file_system_poll_wait_seconds: int = 1
    """How often base paths are looked at for new versions, seconds; 0: once."""

    enable_model_warmup: bool = True
    """Run the warm-up requests of a version before it becomes available."""

    num_request_iterations_for_warmup: int = 1
    """How often each warm-up request runs."""

    enable_serialization_as_tensor_content: bool = False
    """Answer with raw bytes in place of typed lists."""

    tensorflow_intra_op_parallelism: int = 0
    """Threads within one interpreter; 0 is 1, since one single-threaded interpreter per core is the fastest."""

    tensorflow_inter_op_parallelism: int = 0
    """Interpreters that run at the same time; 0: as many as the cores that this process may use."""

    log_level: str = "INFO"
    """Ours alone: DEBUG, INFO or WARNING."""


_TYPES = {field.name: type(field.default) for field in fields(Flags)}
_TRUE, _FALSE = {"", "true", "t", "1"}, {"false", "f", "0"}


def parse(arguments: Sequence[str]) -> Flags:
    """
    Read `--name=value` arguments; a bare `--name` sets a truth value.

    Raises:
        BadFlags: a flag that is unknown, not honoured, without a fitting value, or at odds with another.
    """
    given: dict[str, object] = {}
    for argument in arguments:
        name, equals, text = argument.removeprefix("--").partition("=")
        if not argument.startswith("--") or name not in _TYPES:
            raise BadFlags(f"this server does not honour {argument.partition('=')[0]}; see --help")
        given[name] = _value(name, text, bare=not equals)
    flags = Flags(**given)  # type: ignore[arg-type]  # each value was made with the type of its field
    _check(flags)
    return flags


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
    raise BadFlags(f"--{name} needs {'a value' if kind is str else 'true or false' if kind is bool else 'a number'}")


def _check(flags: Flags) -> None:
    """
    Refuse flags that contradict each other.

    Raises:
        BadFlags: naming the flags.
    """
    if bool(flags.model_config_file) == bool(flags.model_base_path):
        raise BadFlags("give either --model_config_file or --model_base_path")
    if flags.batching_parameters_file and not flags.enable_batching:
        raise BadFlags("--batching_parameters_file was given without --enable_batching")
    if flags.port == 0 and not flags.grpc_socket_path:
        raise BadFlags("--port=0 opens no port: give --grpc_socket_path")
    if flags.port > 65535:
        raise BadFlags("--port is above 65535")
    if flags.log_level not in ("DEBUG", "INFO", "WARNING"):
        raise BadFlags("--log_level is DEBUG, INFO or WARNING")
    if not flags.grpc_socket_path.isprintable() or len(flags.grpc_socket_path) > 100:
        raise BadFlags("--grpc_socket_path is longer than a unix socket may be")
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
        pairs.append((key, int(value) if value.lstrip("-").isdigit() else value))
    return pairs


def usage() -> str:
    """Return the help text: every flag with its default."""
    lines = [f"  --{field.name}={field.default}" for field in fields(Flags)]
    return "\n".join(["usage: python -m serving.modelserver --name=value …", *lines])
