"""Configuration files in TensorFlow Serving's text form: which models to serve, and how requests are run together."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from google.protobuf import text_format
from google.protobuf.message import Message

from serving.modelserver.flags import Flags
from serving.tfs.batching_parameters_pb2 import BatchingParameters
from serving.tfs.protos import TENSORFLOW, FileSystemStoragePathSourceConfig, ModelConfig, ModelServerConfig

FILE_BYTES_MAX = 1024 * 1024
PLATFORM = "tensorflow"
"""What TensorFlow Serving calls its only platform; LiteRT serves the same folders, so the name stays."""


class BadConfig(Exception):
    """A configuration that cannot be honoured; the text says which part of it."""


@dataclass(frozen=True)
class Latest:
    """Serve the *count* highest versions."""

    count: int = 1


@dataclass(frozen=True)
class All:
    """Serve every version that is there."""


@dataclass(frozen=True)
class Specific:
    """Serve these versions, as far as they are there."""

    versions: frozenset[int]


Policy = Latest | All | Specific


@dataclass(frozen=True)
class ConfiguredModel:
    """One model to serve: its name, the folder of its version folders, and which of those are wanted."""

    name: str
    base_path: Path
    policy: Policy = Latest()
    labels: Mapping[str, int] = field(default_factory=dict)
    """Version numbers by label."""


@dataclass(frozen=True)
class Batching:
    """How requests are run together; without batching each runs alone."""

    rows_max: int = 1
    """Rows that run together at most, and of one request at most."""

    run_rows_max: int | None = None
    """Rows of one run where large requests are split; None: they are not, and rows_max is the limit."""

    allowed_sizes: tuple[int, ...] = ()
    """Batches are filled up to one of these, ascending; none: they run as they are."""

    pad_inputs: bool = False
    """Fill inputs up with zeros to the largest of their batch, so that requests of different inner shapes share one."""

    window_s: float = 0.0
    """How long a batch that is not full waits for more; 0: what waits runs as soon as an interpreter is free."""

    rows_waiting_max: int = 256
    """Rows of one version that may wait; above it a request is refused at once."""

    workers: int | None = None
    """Interpreters at the same time; None: one per core."""

    enabled: bool = False


def models_of(flags: Flags) -> list[ConfiguredModel]:
    """
    Return the models that the flags name, by file or one by name and path.

    Raises:
        BadConfig: the file or the path is not usable.
    """
    if flags.model_config_file:
        return models_in(Path(flags.model_config_file))
    base_path = Path(flags.model_base_path)
    if not base_path.is_absolute():
        raise BadConfig("--model_base_path is not an absolute path")
    return [ConfiguredModel(flags.model_name, base_path)]


def models_in(path: Path) -> list[ConfiguredModel]:
    """
    Return the models of a configuration file.

    Raises:
        BadConfig: the file is not usable.
    """
    return models_from(read(path, ModelServerConfig))


def models_from(config: ModelServerConfig) -> list[ConfiguredModel]:
    """
    Check a ModelServerConfig and return its models; an empty one is none, to be told by a reload which to serve.

    Raises:
        BadConfig: a part of it is wrong, or not honoured by this server.
    """
    if config.HasField("custom_model_config"):
        raise BadConfig("custom_model_config is not supported")
    models = [_model(entry) for entry in config.model_config_list.config]
    seen: set[str] = set()
    for model in models:
        if model.name in seen:
            raise BadConfig(f"Illegal to list model {model.name} multiple times in config list")
        seen.add(model.name)
    return models


def _model(entry: ModelConfig) -> ConfiguredModel:
    """
    Check one model's entry.

    Raises:
        BadConfig: naming the model and the field.
    """
    if not entry.name:
        raise BadConfig("a model has no name")
    if not Path(entry.base_path).is_absolute():
        raise BadConfig(
            f"Expected model {entry.name} to have an absolute path or URI; got base_path()={entry.base_path}"
        )
    _check_platform(entry)
    if entry.logging_config.log_collector_config.type:
        raise BadConfig(f"model {entry.name}: logging_config is not honoured: requests are never kept")
    policy = _policy(entry.name, entry.model_version_policy)
    return ConfiguredModel(entry.name, Path(entry.base_path), policy, dict(entry.version_labels))


def _check_platform(entry: ModelConfig) -> None:
    """
    Hold a model to the only platform, given in the new field or in the old one.

    Raises:
        BadConfig: neither or both are given, or another platform is.
    """
    if entry.model_platform and entry.model_type:
        raise BadConfig(
            f"model {entry.name}: Illegal setting both ModelServerConfig::model_type (deprecated) and "
            "ModelServerConfig::model_platform."
        )
    if entry.model_platform != PLATFORM and entry.model_type != TENSORFLOW:
        raise BadConfig(f"model {entry.name}: model_platform is not {PLATFORM}")


def _policy(name: str, policy: FileSystemStoragePathSourceConfig.ServableVersionPolicy) -> Policy:
    """
    Return the version policy; none given is the latest one.

    Raises:
        BadConfig: it asks for no version at all.
    """
    if policy.HasField("all"):
        return All()
    if policy.HasField("specific"):
        if not policy.specific.versions:
            raise BadConfig(f"model {name}: specific version policy without versions")
        return Specific(frozenset(policy.specific.versions))
    return Latest(policy.latest.num_versions or 1)


def batching_of(flags: Flags) -> Batching:
    """
    Return how requests are run together.

    Raises:
        BadConfig: the batching parameters are wrong, or not honoured by this server.
    """
    if not flags.enable_batching:
        return Batching()
    if not flags.batching_parameters_file:
        return batching_from(BatchingParameters())
    return batching_file(Path(flags.batching_parameters_file))


def batching_file(path: Path) -> Batching:
    """
    Return the batching that a file of parameters asks for.

    Raises:
        BadConfig: the file is not usable.
    """
    return batching_from(read(path, BatchingParameters))


def batching_from(given: BatchingParameters) -> Batching:
    """
    Check BatchingParameters; what is not set has TensorFlow Serving's default.

    Raises:
        BadConfig: a field is out of range, or at odds with another.
    """
    rows_max = _positive(given, "max_batch_size", 1000)
    split = given.enable_large_batch_splitting.value
    run_rows_max = _positive(given, "max_execution_batch_size", rows_max) if split else None
    _check_sizes(given.allowed_batch_sizes, rows_max, run_rows_max)
    return Batching(
        rows_max=rows_max,
        run_rows_max=run_rows_max,
        allowed_sizes=tuple(given.allowed_batch_sizes),
        pad_inputs=given.pad_variable_length_inputs,
        window_s=max(0, given.batch_timeout_micros.value) / 1e6,
        rows_waiting_max=rows_max * _positive(given, "max_enqueued_batches", 10),
        workers=_positive(given, "num_batch_threads", 1) if given.HasField("num_batch_threads") else None,
        enabled=True,
    )


def _check_sizes(allowed: Sequence[int], rows_max: int, run_rows_max: int | None) -> None:
    """
    Hold allowed_batch_sizes to its rules: positive, ascending, the last one the size of the largest run.

    Raises:
        BadConfig: in TensorFlow Serving's words.
    """
    if run_rows_max is not None and run_rows_max > rows_max:
        raise BadConfig(f"max_execution_batch_size {run_rows_max} is larger than max_batch_size {rows_max}")
    if not allowed:
        return
    if allowed[0] < 1 or any(first >= second for first, second in itertools.pairwise(allowed)):
        raise BadConfig("allowed_batch_sizes entries must be positive and ascending")
    if run_rows_max is not None and allowed[-1] != run_rows_max:
        raise BadConfig(
            "Last entry in allowed_batch_sizes must be equal to max_execution_batch_size; last entry was "
            f"{allowed[-1]}; expected {run_rows_max}"
        )
    if run_rows_max is None and allowed[-1] != rows_max:
        raise BadConfig(
            "Last entry in allowed_batch_sizes must match max_batch_size; last entry was "
            f"{allowed[-1]}; expected {rows_max}"
        )


def _positive(given: BatchingParameters, field: str, default: int) -> int:
    """
    Return a wrapped number that must be at least one, or the default.

    Raises:
        BadConfig: it is zero or less.
    """
    number: int = getattr(given, field).value if given.HasField(field) else default
    if number < 1:
        raise BadConfig(f"batching parameter {field} must be at least 1")
    return number


M = TypeVar("M", bound=Message)


def read(path: Path, kind: type[M], *, secret: bool = False) -> M:
    """
    Read a text-form message from a file of bounded size.

    Args:
        path: the file.
        kind: the message.
        secret: never quote the file, as the parser's own words do.

    Raises:
        BadConfig: there is no such file, it is too large, or it does not parse.
    """
    try:
        with path.open("rb") as file:
            text = file.read(FILE_BYTES_MAX + 1)
    except OSError as exc:
        raise BadConfig(f"cannot read {path}: {exc.strerror}") from exc
    if len(text) > FILE_BYTES_MAX:
        raise BadConfig(f"{path} is larger than {FILE_BYTES_MAX} bytes")
    name = kind.DESCRIPTOR.name
    try:
        return text_format.Parse(text, kind())
    except (text_format.ParseError, UnicodeDecodeError) as exc:
        if secret:
            raise BadConfig(f"Error parsing text-format tensorflow.serving.{name}") from None
        raise BadConfig(f"Error parsing text-format tensorflow.serving.{name}: {exc}") from exc
