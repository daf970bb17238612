"""Configuration files in TensorFlow Serving's text form: which models to serve, and how requests are run together."""

from dataclasses import dataclass
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


@dataclass(frozen=True)
class Batching:
    """How requests are run together; without batching each runs alone."""

    rows_max: int = 1
    """Rows that run together at most."""

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
        return models_from(_read(Path(flags.model_config_file), ModelServerConfig))
    base_path = Path(flags.model_base_path)
    if not base_path.is_absolute():
        raise BadConfig("--model_base_path is not an absolute path")
    return [ConfiguredModel(flags.model_name, base_path)]


def models_from(config: ModelServerConfig) -> list[ConfiguredModel]:
    """
    Check a ModelServerConfig and return its models.

    Raises:
        BadConfig: a part of it is wrong, or not honoured by this server.
    """
    if config.HasField("custom_model_config"):
        raise BadConfig("custom_model_config is not supported")
    models = [_model(entry) for entry in config.model_config_list.config]
    names = [model.name for model in models]
    for name in names:
        if names.count(name) > 1:
            raise BadConfig(f"Illegal to list model {name} multiple times in config list")
    if not models:
        raise BadConfig("no model is configured")
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
    if entry.model_platform != PLATFORM and entry.model_type != TENSORFLOW:
        raise BadConfig(f"model {entry.name}: model_platform is not {PLATFORM}")
    if entry.version_labels:
        raise BadConfig(f"model {entry.name}: version_labels are not honoured")
    if entry.HasField("logging_config"):
        raise BadConfig(f"model {entry.name}: logging_config is not honoured")
    return ConfiguredModel(entry.name, Path(entry.base_path), _policy(entry.name, entry.model_version_policy))


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
    path = flags.batching_parameters_file
    return batching_from(_read(Path(path), BatchingParameters) if path else BatchingParameters())


def batching_from(given: BatchingParameters) -> Batching:
    """
    Check BatchingParameters; what is not set has TensorFlow Serving's default.

    Raises:
        BadConfig: a field is out of range, or not honoured by this server.
    """
    for field in ("allowed_batch_sizes", "pad_variable_length_inputs", "enable_large_batch_splitting"):
        # On CPUs a padded row costs as much as a real one, and large requests run in slices anyway.
        if getattr(given, field) and (
            field != "enable_large_batch_splitting" or given.enable_large_batch_splitting.value
        ):
            raise BadConfig(f"batching parameter {field} is not honoured")
    if given.HasField("max_execution_batch_size"):
        raise BadConfig("batching parameter max_execution_batch_size is not honoured")
    rows_max = _positive(given, "max_batch_size", 1000)
    batches = _positive(given, "max_enqueued_batches", 10)
    return Batching(
        rows_max=rows_max,
        window_s=max(0, given.batch_timeout_micros.value) / 1e6,
        rows_waiting_max=rows_max * batches,
        workers=_positive(given, "num_batch_threads", 1) if given.HasField("num_batch_threads") else None,
        enabled=True,
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


def _read(path: Path, kind: type[M]) -> M:
    """
    Read a text-form message from a file of bounded size.

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
    try:
        return text_format.Parse(text, kind())
    except (text_format.ParseError, UnicodeDecodeError) as exc:
        raise BadConfig(f"Error parsing text-format tensorflow.serving.{kind.DESCRIPTOR.name}: {exc}") from exc
