"""The path of every request that runs a model, whichever door it came through: version, check, queue, count."""

import asyncio
import functools
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import grpc

from serving.modelserver.backend import LoadedModel
from serving.modelserver.batching import Scheduler
from serving.modelserver.lifecycle import Models
from serving.modelserver.model_spec import Asked, asked_by
from serving.modelserver.observer import Entrypoint, Observer
from serving.modelserver.predict import VALUES_AT_ONCE, Question, answer, is_heavy, read_question
from serving.modelserver.refusals import Refused
from serving.tfs.protos import PredictRequest, PredictResponse
from serving.tfs.tensors import Array

Reader = Callable[[LoadedModel], Question]
"""Check a request against the model that it goes to. Raises Refused."""

T = TypeVar("T")


@dataclass(frozen=True)
class Answer:
    """What ran, and all its outputs; `question.outputs` names those that were asked for."""

    version: int
    question: Question
    outputs: Mapping[str, Array]


@dataclass(frozen=True)
class Inference:
    """Runs models for all doors."""

    models: Models
    scheduler: Scheduler
    observer: Observer
    typed_outputs: bool = True

    async def predict(
        self, request: PredictRequest, *, entrypoint: Entrypoint, time_left_s: float | None
    ) -> PredictResponse:
        """
        Answer a PredictRequest.

        Raises:
            Refused: see predict.read_question and Scheduler.run.
        """
        found = await self.run(
            asked_by(request),
            lambda model: read_question(request, model),
            api="Predict",
            entrypoint=entrypoint,
            time_left_s=time_left_s,
            heavy=is_heavy(request),
        )
        written = functools.partial(
            answer, request, found.version, found.question, found.outputs, typed=self.typed_outputs
        )
        return await off_the_loop(written, values=sum(array.size for array in found.outputs.values()))

    async def run(
        self,
        asked: Asked,
        read: Reader,
        *,
        api: str,
        entrypoint: Entrypoint,
        time_left_s: float | None,
        heavy: bool = False,
    ) -> Answer:
        """
        Run what *read* makes of a request, on the version that it asks for, which is not unloaded meanwhile.

        Args:
            asked: the model and the version.
            read: checks the request against the model.
            api: the method, for the metrics.
            entrypoint: the door, for the metrics.
            time_left_s: until the client's deadline; None: it set none.
            heavy: reading takes longer than the event loop should wait.

        Raises:
            Refused: what TensorFlow Serving refuses too.
        """
        started, status, number = time.monotonic(), grpc.StatusCode.OK.name, None
        try:
            with self.models.serving(asked) as version:
                number, model = version.number, version.servable.model
                question = await asyncio.to_thread(read, model) if heavy else read(model)
                outputs = await self.scheduler.run(version, question, time_left_s)
                return Answer(number, question, outputs)
        except Refused as exc:
            status = exc.code.name
            raise
        except asyncio.CancelledError:
            # The client went, or its deadline passed; gRPC cancels the handler in either case.
            status = _cancelled(started, time_left_s)
            raise
        except BaseException:
            status = grpc.StatusCode.INTERNAL.name
            raise
        finally:
            self.observer.request_ended(
                model=asked.name,
                version=number,
                api=api,
                entrypoint=entrypoint,
                status=status,
                seconds=time.monotonic() - started,
            )


async def off_the_loop(work: Callable[[], T], *, values: int) -> T:
    """Do *work* on that many values: in a thread where the event loop would wait too long for it."""
    return work() if values <= VALUES_AT_ONCE else await asyncio.to_thread(work)


def _cancelled(started: float, time_left_s: float | None) -> str:
    """Return the code that a client saw whose call was cancelled."""
    late = time_left_s is not None and time.monotonic() - started >= time_left_s
    return (grpc.StatusCode.DEADLINE_EXCEEDED if late else grpc.StatusCode.CANCELLED).name
