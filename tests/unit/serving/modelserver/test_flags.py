"""Flags are TensorFlow Serving's; one that is not honoured is refused by name."""

import re
from dataclasses import fields

import pytest

from serving.modelserver.flags import UNSUPPORTED, BadFlags, Flags, channel_arguments, parse, usage

BASE = "--model_base_path=/models/m"


def test_flags_have_tensorflow_servings_defaults() -> None:
    """What is not given is what the original would take."""
    flags = parse([BASE])
    assert flags == Flags(model_base_path="/models/m")
    assert (flags.port, flags.max_num_load_retries, flags.load_retry_interval_micros) == (8500, 5, 60_000_000)
    assert (flags.file_system_poll_wait_seconds, flags.enable_batching, flags.enable_model_warmup) == (1, False, True)


@pytest.mark.parametrize(
    ("argument", "value"),
    [("--enable_batching", True), ("--enable_batching=true", True), ("--enable_batching=0", False)],
)
def test_flags_set_truth_values_bare_or_not(argument: str, value: bool) -> None:
    """A bare flag is true, as with the original."""
    assert parse([BASE, argument]).enable_batching is value


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([BASE, "--rest_api_port=70000"], "--rest_api_port"),
        ([BASE, "--rest_api_port=8500"], "same as --port"),
        ([BASE, "--rest_api_timeout_in_ms=0"], "--rest_api_timeout_in_ms"),
        ([BASE, "--monitoring_config_file=/f"], "--rest_api_port"),
        ([BASE, "--model_config_file_poll_wait_seconds=5"], "--model_config_file"),
        ([BASE, "--enable_per_model_batching_parameters"], "--enable_batching"),
        ([BASE, "--aspired_version_policy=other"], "--aspired_version_policy"),
        ([BASE, "--per_process_gpu_memory_fraction=1.5"], "--per_process_gpu_memory_fraction"),
        ([BASE, "--per_process_gpu_memory_fraction=nan"], "--per_process_gpu_memory_fraction"),
        ([BASE, "--tensorflow_session_parallelism=2", "--tensorflow_intra_op_parallelism=2"], "excludes"),
        ([BASE, "--nonsense"], "--nonsense"),
        ([BASE, "port=1"], "port"),
        ([BASE, "--port=many"], "--port"),
        ([BASE, "--port=-1"], "--port"),
        ([BASE, "--port=70000"], "--port"),
        ([BASE, "--port=0"], "--grpc_socket_path"),
        ([BASE, "--enable_batching=perhaps"], "--enable_batching"),
        ([BASE, "--model_name"], "--model_name"),
        ([], "--model_base_path is required without --model_config_file"),
        ([BASE, "--batching_parameters_file=/f"], "--enable_batching"),
        ([BASE, "--log_level=LOUD"], "--log_level"),
        ([BASE, "--grpc_socket_path=/" + "x" * 200], "--grpc_socket_path"),
        ([BASE, "--grpc_channel_arguments=grpc.x"], "--grpc_channel_arguments"),
    ],
)
def test_flags_refuse_by_name(arguments: list[str], words: str) -> None:
    """The text names the flag that cannot be honoured."""
    with pytest.raises(BadFlags, match=words):
        parse(arguments)


@pytest.mark.parametrize("name", sorted(UNSUPPORTED))
def test_flags_know_what_they_do_not_honour(name: str) -> None:
    """A flag of the original that is not honoured is refused with the reason; what asks for the same passes."""
    with pytest.raises(BadFlags, match=f"does not honour --{name}: {re.escape(UNSUPPORTED[name].reason)}"):
        parse([BASE, f"--{name}=/something/else"])
    for value in UNSUPPORTED[name].accepted:
        assert parse([BASE, f"--{name}={value}"]) == parse([BASE])


OFFICIAL = [
    "port",
    "grpc_socket_path",
    "rest_api_port",
    "rest_api_num_threads",
    "rest_api_timeout_in_ms",
    "rest_api_enable_cors_support",
    "enable_batching",
    "allow_version_labels_for_unavailable_models",
    "batching_parameters_file",
    "enable_per_model_batching_parameters",
    "model_config_file",
    "model_config_file_poll_wait_seconds",
    "model_name",
    "model_base_path",
    "num_load_threads",
    "num_unload_threads",
    "max_num_load_retries",
    "load_retry_interval_micros",
    "file_system_poll_wait_seconds",
    "flush_filesystem_caches",
    "tensorflow_session_parallelism",
    "tensorflow_session_config_file",
    "tensorflow_intra_op_parallelism",
    "tensorflow_inter_op_parallelism",
    "use_alts_credentials",
    "ssl_config_file",
    "platform_config_file",
    "per_process_gpu_memory_fraction",
    "saved_model_tags",
    "grpc_channel_arguments",
    "grpc_max_threads",
    "enable_model_warmup",
    "num_request_iterations_for_warmup",
    "monitoring_config_file",
    "remove_unused_fields_from_bundle_metagraph",
    "prefer_tflite_model",
    "num_tflite_pools",
    "num_tflite_interpreters_per_pool",
    "enable_signature_method_name_check",
    "xla_cpu_compilation_enabled",
    "xla_gpu_compilation_enabled",
    "enable_profiler",
    "thread_pool_factory_config_file",
    "mixed_precision",
    "skip_initialize_tpu",
    "enable_grpc_healthcheck_service",
    "enable_serialization_as_tensor_content",
]


def test_flags_know_every_one_of_the_original() -> None:
    """Each flag of tensorflow_model_server is honoured or refused by name, never both, never unknown."""
    honoured = {field.name for field in fields(Flags)}
    assert set(OFFICIAL) <= honoured | set(UNSUPPORTED)
    assert not honoured & set(UNSUPPORTED)


def test_flags_let_a_configuration_file_win_over_a_base_path() -> None:
    """The official image always gives a base path; beside a configuration file it has no effect."""
    assert parse([BASE, "--model_config_file=/f"]).model_config_file == "/f"


def test_flags_split_channel_arguments() -> None:
    """Numbers are passed to gRPC as numbers."""
    assert channel_arguments("grpc.a=5,grpc.b=x,grpc.c=-1") == [("grpc.a", 5), ("grpc.b", "x"), ("grpc.c", -1)]


def test_flags_are_all_in_the_usage() -> None:
    """The help text names every flag."""
    assert "--model_config_file=" in usage()
    assert "--enable_batching=false" in usage()


@pytest.mark.parametrize("value", ["--5", "٣", "99999999999999999999", "1.5"])
def test_channel_arguments_that_are_no_numbers_stay_text(value: str) -> None:
    """What gRPC could not hold as a number is passed as it was written."""
    assert channel_arguments(f"grpc.x={value},grpc.y=-1") == [("grpc.x", value), ("grpc.y", -1)]
