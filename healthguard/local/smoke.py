"""`make smoke`: the whole product in a temporary folder, used over HTTP as a client would."""

import asyncio
import signal
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from healthguard.client import Client
from healthguard.local import demo, ports, up
from healthguard.local.datadir import DataDir
from healthguard.local.stack import Served, Stack
from healthguard.local.supervisor import Supervisor
from healthguard.results import Prediction
from models import artifact
from models.artifact import GoldenCase

Tell = Callable[[str], None]


class NotRight(RuntimeError):
    """The product runs, and does not do what it must."""


def run(models_folder: Path, tell: Tell) -> dict[str, Any]:
    """
    Start, use and stop the product; return what was done, in numbers.

    Args:
        tell: told of each step, for a person who waits.

    Raises:
        NotRight: an answer was not what it must be.
        ServiceFailed, NotReady, NoDemoUser, ClientError, NoModels: it did not come so far.
        CancelledError: SIGTERM asked it to stop, and all is stopped.
    """
    started_at = time.monotonic()
    report = asyncio.run(_run(models_folder, tell))
    return report | {"seconds": round(time.monotonic() - started_at, 1)}


async def _run(models_folder: Path, tell: Tell) -> dict[str, Any]:
    task = asyncio.current_task()
    assert task is not None  # noqa: S101 - for the type checker: a coroutine that runs has a task
    # As Ctrl-C does: what runs is stopped in order, and the folder is removed on the way out.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    with tempfile.TemporaryDirectory(prefix="healthguard-smoke-") as folder:
        data = DataDir(Path(folder))
        data.make()
        with data.locked():
            return await _use(up.prepare(data, ports.free_ports(), models_folder), tell)


async def _use(running: Stack, tell: Tell) -> dict[str, Any]:
    supervisor = Supervisor(running.services(), running.data.logs)
    keeping = asyncio.create_task(supervisor.run())
    started_at = time.monotonic()
    try:
        if not await up.until_ready(running, supervisor, keeping):
            await keeping  # raises what went wrong
        ready_s = round(time.monotonic() - started_at, 1)
        tell(f"smoke: everything is ready after {ready_s} s")
        count = await asyncio.to_thread(_check, running, tell)
    finally:
        supervisor.stop()
        await asyncio.wait([keeping])
        running.cluster().remove_link()
    tell("smoke: stopped")
    return {"ready_s": ready_s, "predictions": count}


def _check(running: Stack, tell: Tell) -> int:
    """Predict every golden case, and find all of it again; return how many there were."""
    new = demo.create(running)
    with Client(running.url) as client:
        client.login(new.demo.email, new.password)
        stored = [found for model in running.served for found in _predict_all(client, model, tell)]
        check_history(stored, list(client.predictions()))
        statistics = client.statistics()
    if statistics.total != len(stored):
        raise NotRight(f"{len(stored)} predictions were stored, and the statistics count {statistics.total}")
    tell(f"smoke: history and statistics hold all {len(stored)} predictions")
    return len(stored)


def _predict_all(client: Client, model: Served, tell: Tell) -> list[Prediction]:
    golden = artifact.golden(model.base_path / str(model.stable))
    found = []
    for case in golden.cases:
        prediction = client.predict(model.name, case.path)
        check_case(model.name, case, prediction, golden.tolerance)
        found.append(prediction)
    tell(f"smoke: {model.name}: {len(found)} golden cases, each of its class")
    return found


def check_case(model: str, case: GoldenCase, found: Prediction, tolerance: float) -> None:
    """
    Compare an answer with the golden case that was sent.

    Raises:
        NotRight: class or score differ.
    """
    if found.outcome != case.label:
        raise NotRight(f"{model}: {case.path.name} is {case.label}, and the answer was {found.outcome}")
    if found.score is None or abs(found.score - case.probability) > tolerance:
        raise NotRight(f"{model}: {case.path.name} scored {found.score}, not {case.probability} ± {tolerance}")


def check_history(stored: list[Prediction], history: list[Prediction]) -> None:
    """
    Compare the history with what was answered.

    Raises:
        NotRight: one is missing, one is too many, or the newest is not first.
    """
    if history != stored[::-1]:
        raise NotRight(f"the history of {len(history)} is not the {len(stored)} predictions that were stored")
