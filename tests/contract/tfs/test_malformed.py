"""Malformed requests, thousands of them, random but the same each time: none kills the server, none makes it grow."""

import logging
from collections import Counter, deque
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import numpy as np
import pytest

from serving.tfs.protos import PredictRequest, TensorProto, TensorShapeProto
from tests.contract.tfs.harness import Server, both_backends, floats, ours, request

figures = logging.getLogger("figures")
"""Shown by pytest's --log-cli-level=INFO."""

pytestmark = [both_backends, ours("measures our process")]

COUNT = 10_000
AT_ONCE = 64
GROWTH_MB = 25
ALIASES = [("x", ""), ("image", "brightness"), ("n", "text"), ("x", "fixed"), ("a", "pair")]
GOOD = request({"image": np.arange(96, dtype=np.uint8).reshape(2, 4, 4, 3)}, "brightness").SerializeToString()
Random = np.random.Generator


def random_tensor(random: Random) -> bytes:
    """A tensor of random type, shape, typed lists and raw bytes."""
    tensor = TensorProto(dtype=int(random.integers(0, 24)), tensor_shape=random_shape(random))  # type: ignore[arg-type]
    tensor.tensor_content = random.bytes(int(random.integers(0, 200)))
    fill_lists(tensor, random)
    return asked(tensor, random)


def random_list(random: Random) -> bytes:
    """A tensor whose typed lists are shorter or longer than its shape."""
    tensor = TensorProto(dtype=int(random.choice([1, 3, 4, 9])), tensor_shape=random_shape(random))  # type: ignore[arg-type]
    fill_lists(tensor, random)
    return asked(tensor, random)


def wrong_rank(random: Random) -> bytes:
    """An image of the right type with a dimension too many, too few, or of another size."""
    sizes = [1, 4, 4, 3]
    match random.integers(0, 3):
        case 0:
            del sizes[random.integers(0, 4)]
        case 1:
            sizes.insert(int(random.integers(0, 5)), int(random.integers(1, 3)))
        case _:
            sizes[random.integers(0, 4)] = int(random.integers(0, 9))
    return request({"image": np.zeros(sizes, np.uint8)}, "brightness").SerializeToString()


def cut_content(random: Random) -> bytes:
    """A good request whose tensor has too few or too many bytes."""
    built = PredictRequest.FromString(GOOD)
    content = built.inputs["image"].tensor_content
    built.inputs["image"].tensor_content = (content + content)[: int(random.integers(0, 2 * len(content)))]
    return built.SerializeToString()


def cut_message(random: Random) -> bytes:
    """A good message that ends too early."""
    return GOOD[: int(random.integers(0, len(GOOD)))]


def flipped_bytes(random: Random) -> bytes:
    """A good message with some bytes changed."""
    damaged = bytearray(GOOD)
    for at in random.integers(0, len(damaged), int(random.integers(1, 6))):
        damaged[at] = int(random.integers(0, 256))
    return bytes(damaged)


KINDS: list[Callable[[Random], bytes]] = [
    random_tensor,
    random_list,
    wrong_rank,
    cut_content,
    cut_message,
    flipped_bytes,
]


def random_shape(random: Random) -> TensorShapeProto:
    """Return a shape with the sizes that break things."""
    sizes = [0, 1, 2, 3, 4, -1, 2**31, 2**62, -(2**63)]
    dims = [TensorShapeProto.Dim(size=int(random.choice(sizes))) for _ in range(int(random.integers(0, 6)))]
    return TensorShapeProto(dim=dims, unknown_rank=bool(random.integers(0, 20) == 0))


def fill_lists(tensor: TensorProto, random: Random) -> None:
    """Put a few values into some of the typed lists."""
    tensor.float_val.extend(random.normal(size=int(random.integers(0, 4))).tolist())
    tensor.int_val.extend(random.integers(-(2**31), 2**31, size=int(random.integers(0, 4))).tolist())
    tensor.string_val.extend([random.bytes(3)] * int(random.integers(0, 3)))


def asked(tensor: TensorProto, random: Random) -> bytes:
    """Return a request for a random signature with that tensor."""
    alias, signature = ALIASES[random.integers(0, len(ALIASES))]
    return request({alias: tensor}, signature).SerializeToString()


def messages(count: int) -> Iterator[bytes]:
    """Yield messages, each kind in turn."""
    random = np.random.default_rng(20261122)
    for number in range(count):
        yield KINDS[number % len(KINDS)](random)


def send(server: Server, count: int) -> Counter[str]:
    """Send malformed requests, some at a time, and count how they ended."""
    call = server.channel.unary_unary("/tensorflow.serving.PredictionService/Predict", bytes, bytes)
    codes: Counter[str] = Counter()
    pending: deque[Any] = deque()
    for message in messages(count):
        pending.append(call.future(message, timeout=60))
        if len(pending) >= AT_ONCE:
            codes[ended(pending.popleft())] += 1
    codes.update(ended(future) for future in pending)
    return codes


def ended(future: Any) -> str:
    """Wait for a call and return its code."""
    error = future.exception()
    return "OK" if error is None else str(error.code().name)


@pytest.mark.timeout(600)
def test_malformed_requests_kill_nothing_and_leak_nothing(server: Server) -> None:
    """Each is refused, or answered where it happens to be right; the process lives, and is no larger afterwards."""
    send(server, 500)
    before = resident_mb(server.process.pid)
    codes = send(server, COUNT)
    after = resident_mb(server.process.pid)
    figures.info("%d malformed requests: %s; resident MB before %.0f, after %.0f", COUNT, dict(codes), before, after)
    assert server.process.poll() is None
    # A message that cannot be read is INTERNAL or UNKNOWN, by gRPC; a damaged name of model or signature its own code.
    assert set(codes) <= {"OK", "INVALID_ARGUMENT", "NOT_FOUND", "FAILED_PRECONDITION", "INTERNAL", "UNKNOWN"}
    assert codes["INVALID_ARGUMENT"] > COUNT / 2
    assert after < before + GROWTH_MB
    assert list(server.predict(request({"x": floats((1, 2))})).outputs["y"].float_val) == [2, 4]


def resident_mb(pid: int) -> float:
    """Return a process's resident memory, MB."""
    with open(f"/proc/{pid}/statm") as statm:  # noqa: PTH123
        return int(statm.read().split()[1]) * 4096 / 1e6


@pytest.mark.parametrize(
    "sizes",
    [[2**25, 2], [2**62] * 200_000, [2**62] * 60, [0, 2**62]],
    ids=["a value for 67 million", "sizes without number", "as many as a tensor has", "none of something huge"],
)
def test_malformed_shapes_cost_nothing(server: Server, sizes: list[int]) -> None:
    """A few bytes that stand for gigabytes, and shapes that take hours to multiply, are refused as what they are."""
    shape = TensorShapeProto(dim=[TensorShapeProto.Dim(size=size) for size in sizes])
    tensor = TensorProto(dtype="DT_FLOAT", tensor_shape=shape, float_val=[1])
    with pytest.raises(grpc.RpcError) as caught:
        server.predict(request({"x": tensor}), timeout_s=60)
    assert (caught.value.code().name, caught.value.details()) == ("INVALID_ARGUMENT", "tensor parsing error: x")
