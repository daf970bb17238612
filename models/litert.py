"""Run a version by LiteRT, without a server: for verification and comparison."""

import functools
import json
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray

from models.artifact import ArtifactError

CONTRACT_BYTES_MAX = 64 * 1024
MODEL_BYTES_MAX = 1024 * 1024 * 1024
SCHEMA = Path(__file__).parent / "contract.schema.json"


class LiteRtVersion:
    """A version folder with its LiteRT file loaded. Not for use by several threads."""

    def __init__(self, folder: Path) -> None:
        """
        Load the version in *folder*.

        Raises:
            ArtifactError: the file or the contract is missing, too large or damaged, or the contract breaks its schema.
        """
        try:
            self.contract = _contract(folder / "assets.extra" / "contract.json")
            path = folder / "model.tflite"
            if path.stat().st_size > MODEL_BYTES_MAX:
                raise ArtifactError(f"model.tflite is larger than {MODEL_BYTES_MAX} bytes")
            self._interpreter = Interpreter(model_path=str(path), num_threads=1)
            given = self.contract["input"]
            self.size = (int(given["height"]), int(given["width"]))
        except OSError as error:
            raise ArtifactError(f"{Path(error.filename or folder).name} cannot be read") from error
        except (ValueError, RuntimeError, RecursionError) as error:
            raise ArtifactError("model.tflite or its contract is damaged") from error

    def told_contract(self) -> bytes:
        """
        Return the contract that the graph itself tells.

        Raises:
            ArtifactError: it tells none.
        """
        try:
            answer = self._interpreter.get_signature_runner("contract")(n=np.zeros(1, np.int32))
            return bytes(answer["json"][0])
        except (KeyError, ValueError, RuntimeError) as error:
            raise ArtifactError("model.tflite tells no contract") from error

    def score(self, image: NDArray[np.uint8]) -> tuple[float, float]:
        """
        Return probability and out-of-distribution score of one picture uint8[h, w, 3].

        Raises:
            ArtifactError: it cannot be run.
        """
        try:
            answer = self._interpreter.get_signature_runner("serving_default")(image=image[None])
            return float(answer["probability"][0]), float(answer["ood_score"][0])
        except (KeyError, ValueError, RuntimeError) as error:
            raise ArtifactError("model.tflite cannot be run") from error


def _contract(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        content = file.read(CONTRACT_BYTES_MAX + 1)
    if len(content) > CONTRACT_BYTES_MAX:
        raise ArtifactError(f"contract.json is larger than {CONTRACT_BYTES_MAX} bytes")
    found: dict[str, Any] = json.loads(content)
    error = next(iter(_validator().iter_errors(found)), None)
    if error is not None:
        raise ArtifactError(f"contract.json breaks the schema at {'/'.join(map(str, error.path)) or 'its top'}")
    return found


@functools.cache
def _validator() -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text(encoding="utf-8")))
