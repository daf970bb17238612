"""The RPCs on `tf.Example`s, over the same inference as Predict."""

import functools
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from serving.modelserver.examples import (
    CLASSIFY,
    INPUTS,
    REGRESS,
    Method,
    classification,
    methods,
    read_examples,
    regression,
)
from serving.modelserver.inference import Answer, Inference, off_the_loop
from serving.modelserver.model_spec import Asked, asked_by, asked_for
from serving.tfs.protos import (
    ClassificationRequest,
    ClassificationResponse,
    Input,
    ModelSpec,
    MultiInferenceRequest,
    MultiInferenceResponse,
    RegressionRequest,
    RegressionResponse,
)
from serving.tfs.tensors import Array

Result = TypeVar("Result")

EXAMPLES_AT_ONCE = 256
"""Examples that may be serialized on the event loop."""


@dataclass(frozen=True)
class ExampleCalls:
    """Answers Classify, Regress and MultiInference."""

    inference: Inference
    check_method: bool

    async def classify(self, request: ClassificationRequest, time_left_s: float | None) -> ClassificationResponse:
        """
        Label examples.

        Raises:
            Refused: see examples.read_examples.
        """
        name = request.model_spec.signature_name
        found = await self._run(asked_by(request), CLASSIFY, name, request.input, time_left_s, api="Classify")
        return ClassificationResponse(
            result=await _shown(classification, found), model_spec=_spec(request.model_spec, found)
        )

    async def regress(self, request: RegressionRequest, time_left_s: float | None) -> RegressionResponse:
        """
        Give examples numbers.

        Raises:
            Refused: see examples.read_examples.
        """
        name = request.model_spec.signature_name
        found = await self._run(asked_by(request), REGRESS, name, request.input, time_left_s, api="Regress")
        return RegressionResponse(result=await _shown(regression, found), model_spec=_spec(request.model_spec, found))

    async def multi_inference(
        self, request: MultiInferenceRequest, time_left_s: float | None
    ) -> MultiInferenceResponse:
        """
        Do several tasks on the same examples, all on the version that did the first.

        TensorFlow Serving runs them as one. Here each is a run of its own, which costs a second pass where two
        signatures share a network; the answers are the same.

        Raises:
            Refused: the tasks do not belong together; or see examples.read_examples.
        """
        chosen, started = methods(request), time.monotonic()
        response = MultiInferenceResponse()
        asked = asked_for(request.tasks[0].model_spec)
        for task, method in zip(request.tasks, chosen, strict=True):
            left = None if time_left_s is None else time_left_s - (time.monotonic() - started)
            name = task.model_spec.signature_name
            found = await self._run(asked, method, name, request.input, left, api="MultiInference")
            asked = Asked(asked.name, version=found.version)
            result = response.results.add(model_spec=_spec(task.model_spec, found))
            if method is CLASSIFY:
                result.classification_result.CopyFrom(await _shown(classification, found))
            else:
                result.regression_result.CopyFrom(await _shown(regression, found))
        return response

    async def _run(
        self, asked: Asked, method: Method, signature_name: str, given: Input, time_left_s: float | None, *, api: str
    ) -> Answer:
        """
        Run one method on examples.

        Raises:
            Refused: see examples.read_examples.
        """
        found = await self.inference.run(
            asked,
            functools.partial(
                read_examples, method=method, signature_name=signature_name, given=given, check_method=self.check_method
            ),
            api=api,
            entrypoint="GRPC",
            time_left_s=time_left_s,
            heavy=len(given.example_list.examples) + len(given.example_list_with_context.examples) > EXAMPLES_AT_ONCE,
        )
        self.inference.observer.examples_read(model=asked.name, count=_count(found))
        return found


async def _shown(show: Callable[[int, Mapping[str, Array]], Result], found: Answer) -> Result:
    """
    Return what a model gave in the form of the answer.

    Raises:
        Refused: INVALID_ARGUMENT; the model gave something else.
    """
    outputs = _asked_outputs(found)
    values = sum(array.size for array in outputs.values())
    return await off_the_loop(functools.partial(show, _count(found), outputs), values=values)


def _asked_outputs(found: Answer) -> Mapping[str, Array]:
    return {alias: found.outputs[alias] for alias in found.question.outputs}


def _count(found: Answer) -> int:
    # Not the question's rows: a signature of fixed size has examples, but no rows that could be run apart.
    return len(found.question.inputs[INPUTS])


def _spec(asked: ModelSpec, found: Answer) -> ModelSpec:
    """Say which model, version and signature answered."""
    spec = ModelSpec(name=asked.name, signature_name=found.question.signature)
    spec.version.value = found.version
    return spec
