# ruff: noqa: T201 - a command's answer
"""
Closed-loop load over gRPC: `python -m tests.load.bench.closed_loop ADDRESS MODEL`.

Reads lines of `CONCURRENCY SECONDS`, and answers each with a line of JSON. So many callers send one request after the
other; what the generator costs itself is measured, since it shares the machine with what it measures.
"""

import asyncio
import json
import sys
import time
from collections import Counter

import grpc.aio
import numpy as np

from serving.tfs.protos import PREDICTION_SERVICE, PredictResponse
from tests.load.bench.pictures import Requests

TIMEOUT_S = 30.0


async def load(address: str, requests: Requests, concurrency: int, seconds: float) -> dict[str, object]:
    """Call for some seconds; return rates, latencies and errors by code."""
    took: list[float] = []
    errors: Counter[str] = Counter()
    async with grpc.aio.insecure_channel(address) as channel:
        # Bytes out and bytes in: the generator's own work is not what is measured.
        call = channel.unary_unary(
            f"/{PREDICTION_SERVICE}/Predict", request_serializer=None, response_deserializer=None
        )
        PredictResponse.FromString(await call(requests.next(), timeout=TIMEOUT_S))
        cpu, started = time.process_time(), time.perf_counter()
        end = started + seconds

        async def caller() -> None:
            while (now := time.perf_counter()) < end:
                try:
                    await call(requests.next(), timeout=TIMEOUT_S)
                    took.append(time.perf_counter() - now)
                except grpc.aio.AioRpcError as exc:
                    errors[exc.code().name] += 1

        await asyncio.gather(*(caller() for _ in range(concurrency)))
        elapsed = time.perf_counter() - started
    done = max(1, len(took))
    return {
        "requests": len(took),
        "rps": len(took) / elapsed,
        "p50_ms": float(np.percentile(took or [0], 50)) * 1e3,
        "p99_ms": float(np.percentile(took or [0], 99)) * 1e3,
        "errors": dict(errors),
        "generator_cpu_ms": (time.process_time() - cpu) / done * 1e3,
    }


def main(address: str, model: str) -> None:
    """Answer one line with another."""
    requests = Requests(model)
    print("ready", flush=True)
    for line in sys.stdin:
        concurrency, seconds = line.split()
        print(json.dumps(asyncio.run(load(address, requests, int(concurrency), float(seconds)))), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
