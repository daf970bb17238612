"""Flags are TensorFlow Serving's; one that is not honoured is refused by name."""

import pytest

from serving.modelserver.flags import BadFlags, Flags, channel_arguments, parse, usage

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
        ([BASE, "--rest_api_port=8501"], "--rest_api_port"),
        ([BASE, "--nonsense"], "--nonsense"),
        ([BASE, "port=1"], "port"),
        ([BASE, "--port=many"], "--port"),
        ([BASE, "--port=-1"], "--port"),
        ([BASE, "--port=70000"], "--port"),
        ([BASE, "--port=0"], "--grpc_socket_path"),
        ([BASE, "--enable_batching=perhaps"], "--enable_batching"),
        ([BASE, "--model_name"], "--model_name"),
        ([BASE, "--model_config_file=/f"], "either --model_config_file or --model_base_path"),
        ([], "either --model_config_file or --model_base_path"),
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


def test_flags_split_channel_arguments() -> None:
    """Numbers are passed to gRPC as numbers."""
    assert channel_arguments("grpc.a=5,grpc.b=x,grpc.c=-1") == [("grpc.a", 5), ("grpc.b", "x"), ("grpc.c", -1)]


def test_flags_are_all_in_the_usage() -> None:
    """The help text names every flag."""
    assert "--model_config_file=" in usage()
    assert "--enable_batching=False" in usage()
