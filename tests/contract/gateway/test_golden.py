"""The gateway's decode and resize are the ones that each committed version was exported with: its golden cases."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import cv2
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

from gateway.contracts import Contract, decide, parse_contract
from gateway.images import EncodedImage, Pixels, check, decode
from tests import committed

ROOT = Path(__file__).parents[3]


@dataclass(frozen=True)
class Golden:
    """A committed version, and the pictures that it carries with the answers that it gave when it was exported."""

    contract: Contract
    cases: list[dict[str, Any]]
    tolerance: float
    images: dict[str, EncodedImage]
    predict: Any

    @classmethod
    def of(cls, model: str) -> Self:
        """Read the stable version of *model*."""
        version = committed.folder(model)
        extra = version / "assets.extra"
        document = json.loads((extra / "golden" / "cases.json").read_text())
        files = [case["file"] for case in document["cases"]]
        return cls(
            contract=parse_contract((extra / "contract.json").read_bytes(), model, committed.version(model)),
            cases=document["cases"],
            tolerance=document["tolerance"],
            images={file: check((extra / "golden" / file).read_bytes(), pixels_max=10**7) for file in files},
            predict=Interpreter(str(version / "model.tflite")).get_signature_runner("serving_default"),
        )

    def scores(self, pixels: Pixels) -> tuple[float, float]:
        """Return probability and out-of-distribution score of one picture."""
        found = self.predict(image=pixels[None])
        return float(found["probability"][0]), float(found["ood_score"][0])


@pytest.fixture(params=["cancer", "anemia"])
def golden(request: pytest.FixtureRequest) -> Golden:
    """Return each committed model's."""
    return Golden.of(request.param)


def test_golden_cases_give_the_committed_answers(golden: Golden) -> None:
    """The picture through `decode`, the pixels through the LiteRT graph, the scores through `decide`."""
    assert {case["label"] for case in golden.cases} == set(golden.contract.labels)
    for case in golden.cases:
        pixels = decode(golden.images[case["file"]], golden.contract.input)
        probability, ood_score = golden.scores(pixels)
        assert probability == pytest.approx(case["probability"], abs=golden.tolerance)
        assert ood_score == pytest.approx(case["ood_score"], rel=0.01)
        assert decide(golden.contract, probability, ood_score).outcome == case["label"]


def test_golden_cases_notice_another_filter(golden: Golden) -> None:
    """Resized by the nearest pixel, at least one committed probability is missed: the cases do pin the resizing."""
    size = (golden.contract.input.width, golden.contract.input.height)
    differences = []
    for case in golden.cases:
        stored = cv2.imdecode(np.frombuffer(golden.images[case["file"]].content, np.uint8), cv2.IMREAD_COLOR_RGB)
        assert stored is not None
        pixels = np.asarray(cv2.resize(stored, size, interpolation=cv2.INTER_NEAREST), dtype=np.uint8)
        differences.append(abs(golden.scores(pixels)[0] - case["probability"]))
    assert max(differences) > golden.tolerance
