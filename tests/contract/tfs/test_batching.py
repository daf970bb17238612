"""Batching: what TensorFlow Serving promises about sizes, queues and deadlines."""

from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
import pytest

from serving.tfs.protos import PredictRequest
from tests.contract.tfs.harness import (
    QUICK,
    Server,
    add_version,
    floats,
    folder,
    ours,
    request,
    running,
    slow,
    wait_until,
)


@pytest.fixture(scope="module")
def batching() -> Iterator[Server]:
    """Run a server with one interpreter, batches of 4 rows, and a queue of 2 batches."""
    with folder() as home:
        add_version(home / "arithmetic", 1)
        parameters = home / "batching"
        parameters.write_text(
            "max_batch_size { value: 4 } max_enqueued_batches { value: 2 } num_batch_threads { value: 1 }"
        )
        flags = ("--model_name=arithmetic", "--enable_batching", f"--batching_parameters_file={parameters}")
        with running(f"--model_base_path={home / 'arithmetic'}", *flags, *QUICK) as server:
            yield server


def send(server: Server, asked: PredictRequest) -> Any:
    """Start a call and return its future."""
    return server.predictions.Predict.future(asked, timeout=20)


def test_batching_refuses_a_task_larger_than_a_batch(batching: Server) -> None:
    """More rows than max_batch_size are an INVALID_ARGUMENT, in TensorFlow Serving's words."""
    with pytest.raises(grpc.RpcError) as caught:
        batching.predict(request({"x": np.ones((5, 2), np.float32)}))
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert caught.value.details() == "Task size 5 is larger than maximum input batch size 4"


def test_batching_refuses_when_the_queue_is_full(batching: Server) -> None:
    """With the interpreter busy 8 rows may wait; others are UNAVAILABLE at once, and all that waited are answered."""
    busy = send(batching, slow(6000))
    # Calls race each other to the server: some may run before the slow one, so more are sent than can wait.
    futures = [send(batching, request({"x": floats((n, n))})) for n in range(24)]
    wait_until(lambda: any(future.done() and future.exception() for future in futures))
    wait_until(lambda: sum(not future.done() for future in futures) <= 8)
    refused = [future for future in futures if future.done() and future.exception()]
    assert not busy.done()
    for future in refused:
        assert future.exception().code() == grpc.StatusCode.UNAVAILABLE
        text = future.exception().details()
        assert text.startswith("The batch scheduling queue to which this task was submitted is full")
    for n, future in enumerate(futures):
        if future not in refused:
            assert list(future.result(timeout=20).outputs["y"].float_val) == [2 * n, 2 * n]
    busy.result(timeout=20)


def test_batching_answers_each_task_its_own_rows(batching: Server) -> None:
    """Tasks of several sizes that run together get their own parts back."""
    busy = send(batching, slow(1000))
    first = send(batching, request({"x": floats((1, 2), (3, 4))}))
    second = send(batching, request({"x": floats((5, 6))}))
    assert list(first.result(timeout=20).outputs["y"].float_val) == [2, 4, 6, 8]
    assert list(second.result(timeout=20).outputs["y"].float_val) == [10, 12]
    busy.result(timeout=20)


@ours("the original runs what nobody waits for any more")
def test_batching_frees_the_places_of_expired_tasks(batching: Server) -> None:
    """Tasks whose deadline passed while they waited make room for those who still wait for an answer."""
    busy = send(batching, slow(6000))
    expired = [batching.predictions.Predict.future(request({"x": floats((n, n))}), timeout=0.1) for n in range(8)]
    for future in expired:
        assert future.exception(timeout=20).code() == grpc.StatusCode.DEADLINE_EXCEEDED
    living = [send(batching, request({"x": floats((n, n))})) for n in range(8)]
    for n, future in enumerate(living):
        assert list(future.result(timeout=20).outputs["y"].float_val) == [2 * n, 2 * n]
    busy.result(timeout=20)


def test_batching_refuses_inputs_of_unequal_sizes(batching: Server) -> None:
    """Inputs whose 0th dimensions differ make no batch."""
    uneven = request({"a": np.ones(1, np.float32), "b": np.ones(2, np.float32)}, "pair")
    with pytest.raises(grpc.RpcError) as caught:
        batching.predict(uneven)
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "input tensors must have" in (caught.value.details() or "")


def test_batching_refuses_a_scalar(batching: Server) -> None:
    """An input without a 0th dimension makes no batch either."""
    with pytest.raises(grpc.RpcError) as caught:
        batching.predict(request({"x": np.float32(1)}))
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT


def test_batching_pads_to_allowed_sizes_unnoticed() -> None:
    """Whatever size a batch is filled up to, each request gets its own rows and no others."""
    with folder() as home:
        add_version(home / "arithmetic", 1)
        (home / "batching").write_text(
            "max_batch_size { value: 8 } batch_timeout_micros { value: 1000 } "
            "allowed_batch_sizes: 4 allowed_batch_sizes: 8"
        )
        flags = ("--model_name=arithmetic", "--enable_batching", f"--batching_parameters_file={home / 'batching'}")
        with running(f"--model_base_path={home / 'arithmetic'}", *flags, *QUICK) as server:
            futures = [send(server, request({"x": np.full((n % 5 + 1, 2), n, np.float32)})) for n in range(40)]
            for n, future in enumerate(futures):
                found = future.result(timeout=20).outputs["y"]
                assert [dim.size for dim in found.tensor_shape.dim] == [n % 5 + 1, 2]
                assert set(found.float_val) == {2.0 * n}


@pytest.fixture(scope="module")
def per_model() -> Iterator[Server]:
    """Run a server whose versions say themselves how they are batched: one in twos, one wrongly, one not at all."""
    with folder() as home:
        for version, text in ((1, "max_batch_size { value: 2 }"), (2, "allowed_batch_sizes: 3"), (3, None)):
            folder_of = add_version(home / "staging", version)
            if text is not None:
                (folder_of / "batching_params.pbtxt").write_text(text)
        (home / "staging").rename(home / "arithmetic")
        config = home / "config"
        config.write_text(
            f'model_config_list {{ config {{ name: "arithmetic" base_path: "{home}/arithmetic" '
            'model_platform: "tensorflow" model_version_policy { all { } } } }'
        )
        flags = ("--enable_batching", "--enable_per_model_batching_parameters")
        with running(f"--model_config_file={config}", *flags, *QUICK) as server:
            yield server


def test_batching_of_a_version_is_its_own(per_model: Server) -> None:
    """A version's own file bounds its batches; one without the file is not batched, so nothing bounds it."""
    three_rows = floats((1, 2), (3, 4), (5, 6))
    with pytest.raises(grpc.RpcError) as caught:
        per_model.predict(request({"x": three_rows}, version=1))
    assert caught.value.details() == "Task size 3 is larger than maximum input batch size 2"
    answer = per_model.predict(request({"x": three_rows}, version=3)).outputs["y"]
    assert list(answer.float_val) == [2, 4, 6, 8, 10, 12]


def test_batching_that_is_wrong_fails_the_version(per_model: Server) -> None:
    """Allowed sizes that do not end with the largest batch end the version with INVALID_ARGUMENT."""
    assert per_model.states() == {1: ("AVAILABLE", 0), 2: ("END", 3), 3: ("AVAILABLE", 0)}
