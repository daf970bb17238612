"""The Open Inference Protocol over HTTP: JSON, and the extension that puts tensors after it as raw bytes."""

import asyncio
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gateway.open_inference import Inferred, Question, SentTensor
from gateway.problems import BadTensor
from healthguard.problems import PayloadTooLarge

HEADER_LENGTH = "Inference-Header-Content-Length"
"""How many bytes of the body are JSON, where tensors follow it."""
BINARY_TYPE = "application/octet-stream"
JSON_BYTES_MAX = 8 * 1024 * 1024
"""Numbers as text take some ten times their memory once they are read."""
AT_ONCE_BYTES_MAX = 32 * 1024
"""What is longer is parsed in a thread: it would hold the event loop for more than a millisecond."""

Name = Annotated[str, Field(min_length=1, max_length=64)]
Parameters = Annotated[dict[Annotated[str, Field(max_length=64)], bool | int | float | str], Field(max_length=32)]


class _Part(BaseModel):
    # Extensions of the protocol add members that we need not know.
    model_config = ConfigDict(extra="ignore", hide_input_in_errors=True)


class InferInput(_Part):
    """A tensor that is sent: its values in `data`, or behind the JSON where `binary_data_size` says how many bytes."""

    name: Annotated[Name, Field(examples=["image"])]
    shape: Annotated[list[Annotated[int, Field(ge=0, le=2**31)]], Field(max_length=8, examples=[[1, 224, 224, 3]])]
    datatype: Annotated[str, Field(max_length=16, examples=["UINT8"])]
    parameters: Parameters = {}
    data: list[Any] | None = None


class RequestedOutput(_Part):
    """An output that is wanted."""

    name: Annotated[Name, Field(examples=["probability"])]
    parameters: Parameters = {}


class InferRequest(_Part):
    """A question to a model."""

    id: Annotated[str, Field(max_length=128)] | None = None
    parameters: Parameters = {}
    inputs: Annotated[list[InferInput], Field(min_length=1, max_length=8)]
    outputs: Annotated[list[RequestedOutput], Field(max_length=8)] | None = None

    def binary(self, output: str) -> bool:
        """Tell whether an output is wanted as raw bytes: said for it, or for all."""
        of_all = self.parameters.get("binary_data_output", False)
        named = {wanted.name: wanted.parameters for wanted in self.outputs or ()}
        return named.get(output, {}).get("binary_data", of_all) is True


class InferOutput(BaseModel):
    """A tensor that is answered."""

    name: Annotated[str, Field(examples=["probability"])]
    datatype: Annotated[str, Field(examples=["FP32"])]
    shape: Annotated[list[int], Field(examples=[[1]])]
    parameters: dict[str, int] | None = None
    data: Annotated[list[float] | None, Field(examples=[[0.08]])] = None


class InferResponse(BaseModel):
    """What a model answered."""

    model_config = ConfigDict(protected_namespaces=())

    model_name: Annotated[str, Field(examples=["cancer"])]
    model_version: Annotated[str, Field(examples=["1"])]
    id: str | None = None
    outputs: list[InferOutput]


async def parse(body: bytes | bytearray, header_length: int | None) -> tuple[InferRequest, list[SentTensor]]:
    """
    Read a request, in a thread where it is long.

    Args:
        header_length: how many bytes are JSON; None: all.

    Raises:
        BadTensor: it is not of the protocol's form, or the tensors behind the JSON are not as long as it says.
        PayloadTooLarge: the JSON is too long; tensors as bytes may be longer.
    """
    length = len(body) if header_length is None else header_length
    if length > JSON_BYTES_MAX:
        raise PayloadTooLarge("Send large tensors as binary data.", limit_bytes=JSON_BYTES_MAX)
    if length <= AT_ONCE_BYTES_MAX:
        return _parse(body, length)
    return await asyncio.to_thread(_parse, body, length)


def _parse(body: bytes | bytearray, length: int) -> tuple[InferRequest, list[SentTensor]]:
    """
    Read a request.

    Raises:
        BadTensor: as `parse`.
    """
    try:
        request = InferRequest.model_validate_json(bytes(body[:length]))
    except ValidationError as exc:
        raise BadTensor("The request is not of the protocol's form.") from exc
    rest, tensors = memoryview(bytes(body[length:])), []
    for sent in request.inputs:
        size = sent.parameters.get("binary_data_size")
        content: memoryview | list[Any] | None = sent.data
        if size is not None:
            if (
                not isinstance(size, int)
                or isinstance(size, bool)
                or not 0 <= size <= len(rest)
                or sent.data is not None
            ):
                raise BadTensor("The size of the binary data is not what follows the JSON.")
            content, rest = rest[:size], rest[size:]
        if content is None:
            raise BadTensor("An input has no data.")
        tensors.append(SentTensor(sent.name, sent.datatype, tuple(sent.shape), content))
    if len(rest):
        raise BadTensor("More data follow the JSON than it says.")
    return request, tensors


def question_of(request: InferRequest, tensors: list[SentTensor], version: int | None) -> Question:
    """Return what a request asks."""
    return Question(tensors, [output.name for output in request.outputs or ()], version)


def encode(request: InferRequest, inferred: Inferred) -> tuple[bytes, int | None]:
    """
    Return the answer's body, and how many bytes of it are JSON; None where all are.

    Raises:
        pydantic_core.PydanticSerializationError: never for float32.
    """
    outputs, binary = [], []
    for name, values in inferred.outputs.items():
        output = InferOutput(name=name, datatype="FP32", shape=list(values.shape))
        if request.binary(name):
            binary.append(np.ascontiguousarray(values, dtype="<f4").tobytes())
            output.parameters = {"binary_data_size": len(binary[-1])}
        else:
            output.data = values.tolist()
        outputs.append(output)
    answer = InferResponse(
        model_name=inferred.model, model_version=str(inferred.version), id=request.id, outputs=outputs
    )
    text = answer.model_dump_json(exclude_none=True).encode()
    return (b"".join([text, *binary]), len(text)) if binary else (text, None)
