"""Build a version from a LiteRT file, without TensorFlow."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray

from models import contract, measures
from models.importing import calibrating, documents, litert_source, litert_version, pictures, reading, scaling
from models.importing.documents import Calibration, Facts
from models.importing.litert_source import LiteRtSource
from models.importing.reading import Activation, Reading
from models.importing.request import CannotImport, Request

SAME_WITHIN = 1e-4
"""How far the version's score may be from the source's, on every golden case."""

_NO_HEATMAP = "a LiteRT file has no derivatives, and its feature maps have no names"


def build(request: Request, source_digest: str, made: Path, say: Callable[[str], None]) -> tuple[float, list[str]]:
    """
    Write everything of a version into the new folder *made*.

    Returns:
        How far it is from its source, and what it cannot do.

    Raises:
        CannotImport: it cannot become one.
    """
    if request.explain not in (None, "none"):
        raise CannotImport(f"A version from a .tflite file has no heat map: {_NO_HEATMAP}. Leave --explain.")
    say("Reading the network")
    source = litert_source.load(Path(request.source), request)
    activation: Activation = source.activation
    meaning = reading.read(request, source.outputs)
    reading.check_exclusive(meaning, activation)
    named = scaling.choose(request.scaling, inside=source.scales, quantised_range=source.quantised_range)
    answering = _Answering(source, scaling.SCALINGS[named])
    calibrated = _measured(request, answering, meaning)
    images, expected = _golden(request, answering, meaning)
    say("Writing the file")
    any_rows = source.any_rows and _takes_rows(source, activation, meaning, answering.scaling, images)
    remarks: tuple[str, ...] = (
        () if any_rows else ("One image a run: requests with several are refused, and batching gains nothing.",)
    )
    remarks += documents.unproved(request.labels, meaning.thresholds, expected)
    facts = Facts(
        format="tflite",
        source_digest=source_digest,
        weights_digest=source_digest,
        size=source.size,
        scaling="the network's own" if source.scales and named == "none" else named,
        reading=meaning,
        explain="none",
        grid=None,
        no_heatmap=_NO_HEATMAP,
        calibration=calibrated,
        formats=("model.tflite",),
        remarks=remarks,
    )
    card = documents.card(request, facts)
    document = documents.contract(request, facts, card)
    text = contract.text(document)
    content = litert_version.write(source, activation, meaning, answering.scaling, text, any_rows=any_rows)
    made.mkdir()
    (made / "model.tflite").write_bytes(content)
    documents.write_extra(made, document, card)
    say("Comparing with the source")
    difference = float(np.abs(_scores(content, images) - expected).max())
    # Written so that "not a number" is a difference too.
    if not difference <= SAME_WITHIN:
        raise CannotImport(f"The version's scores differ from the source's by {difference:.2g}.")
    documents.write_golden(made, document, images, expected, np.zeros(len(images)))
    return difference, document["limitations"]


class _Answering:
    """Asks the source about pictures, scaled as its caller scaled them."""

    def __init__(self, source: LiteRtSource, scaled: scaling.Scaling) -> None:
        self.source, self.scaling = source, scaled

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return float32[n, k] for uint8[n, h, w, 3]."""
        return np.concatenate([self.source.answer(scaling.apply(self.scaling, image[None])) for image in images])


def _golden(request: Request, answering: _Answering, meaning: Reading) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """Return the pictures of the golden cases and the source's scores for them."""
    activation = answering.source.activation
    images = pictures.golden(Path(request.golden) if request.golden else None, answering.source.size)
    answers = answering(images)
    chosen = reading.golden_choice(meaning, activation, answers, 1.0)
    return images[chosen], reading.scores(meaning, activation, answers[chosen], 1.0)


def _measured(request: Request, answering: _Answering, meaning: Reading) -> Calibration:
    """Measure on labelled pictures what can be measured; a temperature is not applied to a file that stays as it is."""
    if request.calibrate is None:
        return Calibration()
    given = pictures.labelled(Path(request.calibrate), request.labels, answering.source.size)
    answers = answering(given.images)
    activation = answering.source.activation
    if len(request.labels) > 2:
        return calibrating.fit(meaning, activation, answers, given.truth)
    score = reading.scores(meaning, activation, answers, 1.0)
    error = measures.calibration_error(score, given.truth.astype(np.float64))
    return Calibration(len(given.truth), error=(error, error))


def _takes_rows(
    source: LiteRtSource, activation: Activation, meaning: Reading, scaled: scaling.Scaling, images: NDArray[np.uint8]
) -> bool:
    """Tell whether several images in one run get what each gets alone; converters often fix the number at one."""
    content = litert_version.write(source, activation, meaning, scaled, "{}", any_rows=True)
    some = np.repeat(images, 3, axis=0)[:3]
    try:
        together = _scores(content, some, rows=3)
        return bool(np.abs(together - _scores(content, some)).max() <= SAME_WITHIN)
    except (RuntimeError, ValueError):
        return False


def _scores(content: bytes, images: NDArray[np.uint8], rows: int = 1) -> NDArray[np.float32]:
    runner = Interpreter(model_content=content, num_threads=1).get_signature_runner("serving_default")
    parts = [runner(image=images[i : i + rows])["probability"].copy() for i in range(0, len(images), rows)]
    return np.concatenate(parts)
