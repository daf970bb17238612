"""Every request is counted once, with the code that its client saw."""

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from serving.modelserver.backend import RunFailed, Servable
from serving.modelserver.batching import Scheduler
from serving.modelserver.config import Batching, ConfiguredModel
from serving.modelserver.inference import Inference
from serving.modelserver.lifecycle import Models, State
from serving.modelserver.model_spec import Asked
from serving.modelserver.observer import Observer
from serving.modelserver.predict import question
from serving.modelserver.refusals import Refused
from serving.tfs.protos import ModelSpec, PredictRequest
from serving.tfs.tensors import Array, from_array
from tests.unit.serving.modelserver.fakes import FakeModel

NEWEST = Asked("m")


class Ears(Observer):
    """Remembers how requests ended."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, int | None, str, str, str]] = []

    def request_ended(self, **event: Any) -> None:
        """Note a request."""
        assert event["seconds"] >= 0
        self.heard.append(
            (event["model"], event["version"], event["api"], event["entrypoint"], event["status"]),
        )


class Doubler:
    """A model that fails, crashes or waits when its input says so."""

    def __init__(self) -> None:
        self.opened = threading.Event()

    def __call__(self, x: Array) -> None:
        match x[0]:
            case 13:
                raise RunFailed("kernel text")
            case 14:
                raise ZeroDivisionError
            case 15:
                assert self.opened.wait(20)


@pytest.fixture
def doubler() -> Doubler:
    """Make what a model does."""
    return Doubler()


@pytest.fixture
async def inference(tmp_path: Path, doubler: Doubler) -> AsyncIterator[Inference]:
    """Serve version 3 of the model `m`."""
    (tmp_path / "m" / "3").mkdir(parents=True)
    models = Models(lambda _: Servable(FakeModel(doubler), Batching()), poll_s=0)
    await models.start([ConfiguredModel("m", tmp_path / "m")])
    scheduler = Scheduler(1)
    scheduler.start()
    yield Inference(models, scheduler, Ears())
    doubler.opened.set()
    scheduler.close()
    await models.close()


def heard(inference: Inference) -> list[tuple[str, int | None, str, str, str]]:
    """Return how requests ended."""
    assert isinstance(inference.observer, Ears)
    return inference.observer.heard


async def ask(inference: Inference, value: float, asked: Asked = NEWEST, time_left_s: float | None = 20) -> Any:
    """Ask for the double of a number, through the REST door."""
    inputs = {"x": np.array([value], np.float32)}
    return await inference.run(
        asked, lambda model: question(model, "", inputs), api="predict", entrypoint="REST", time_left_s=time_left_s
    )


async def test_inference_answers_and_counts(inference: Inference) -> None:
    """An answer names the version and is counted as OK, for both doors."""
    answer = await ask(inference, 4)
    assert (answer.version, answer.outputs["y"].tolist()) == (3, [8])
    request = PredictRequest(model_spec=ModelSpec(name="m"), inputs={"x": from_array(np.ones(1, np.float32))})
    response = await inference.predict(request, entrypoint="GRPC", time_left_s=20)
    assert list(response.outputs["y"].float_val) == [2]
    assert heard(inference) == [("m", 3, "predict", "REST", "OK"), ("m", 3, "Predict", "GRPC", "OK")]


@pytest.mark.parametrize(
    ("asked", "value", "version", "code"),
    [
        (Asked("other"), 1, None, "NOT_FOUND"),
        (Asked("m", 9), 1, None, "NOT_FOUND"),
        (Asked("m", label="canary"), 1, None, "INVALID_ARGUMENT"),
        (Asked("m"), 13, 3, "INVALID_ARGUMENT"),
        (Asked("m"), 14, 3, "INTERNAL"),
    ],
    ids=["an unknown model", "an unknown version", "an unknown label", "the runtime refuses", "the runtime crashes"],
)
async def test_inference_counts_refusals(
    inference: Inference, asked: Asked, value: float, version: int | None, code: str
) -> None:
    """A refusal is counted with its code, and with the version where it came to one."""
    with pytest.raises(Refused) as caught:
        await ask(inference, value, asked)
    assert caught.value.code.name == code
    assert heard(inference) == [(asked.name, version, "predict", "REST", code)]


@pytest.mark.parametrize(("time_left_s", "code"), [(0.0, "DEADLINE_EXCEEDED"), (20, "CANCELLED")])
async def test_inference_counts_what_its_client_gave_up(inference: Inference, time_left_s: float, code: str) -> None:
    """A call that is cancelled is counted by whether its deadline had passed."""
    call = asyncio.create_task(ask(inference, 15, time_left_s=time_left_s))
    await asyncio.sleep(0)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert heard(inference) == [("m", 3, "predict", "REST", code)]


async def test_inference_holds_a_version_whose_clients_have_gone(inference: Inference, doubler: Doubler) -> None:
    """A version is unloaded only when no worker and no queue has a request of it, also one that nobody waits for."""
    held = inference.models.versions("m")[0]
    calls = [asyncio.create_task(ask(inference, value)) for value in (15, 1)]
    async with asyncio.timeout(20):
        while sum(inference.scheduler.waiting().values()) != 1:
            await asyncio.sleep(0.005)
    for call in calls:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)
    inference.models.configure([])
    await asyncio.sleep(0)
    assert (held.state, held.loaded is not None) == (State.UNLOADING, True)
    doubler.opened.set()
    async with asyncio.timeout(20):
        while held.state is not State.END:
            await asyncio.sleep(0.005)
    # The worker outlived it: another model's request is answered.
    inference.models.configure([held_config(inference)])
    await inference.models.available(["m"])
    assert (await ask(inference, 2)).outputs["y"].tolist() == [4]


def held_config(inference: Inference) -> ConfiguredModel:
    """Return the configuration of `m`, for it to come back."""
    return ConfiguredModel("m", inference.models.versions("m")[0].path.parent)
