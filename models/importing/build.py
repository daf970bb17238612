"""Build a version from a network that TensorFlow can load."""

import hashlib
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from models import contract, export, warmup
from models.importing import calibrating, documents, frozen, pictures, reading, scaling, walk
from models.importing.documents import Calibration, Facts
from models.importing.formats import Format
from models.importing.frozen import Frozen
from models.importing.network import Network
from models.importing.request import OCCLUSION_CELLS, CannotImport, Explain, Request

SAME_WITHIN = 1e-4
"""How far the version's score may be from the source's, on every golden case."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class Outcome:
    """What was built: how far it is from its source, and SavedModel from LiteRT file; and what it cannot do."""

    difference: float
    between_files: float
    limitations: list[str]


def build(request: Request, format_: Format, source_digest: str, made: Path, say: Say) -> Outcome:
    """
    Write everything of a version into the new folder *made*.

    Raises:
        CannotImport: it cannot become one.
    """
    with tempfile.TemporaryDirectory() as scratch:
        say("Reading the network")
        source = frozen.load(request, format_, Path(scratch))
    network = _network(request, source)
    say("Calibrating" if request.calibrate else "Writing the graphs")
    network, calibrated = _calibrated(request, network)
    facts = _facts(request, format_, source_digest, network, calibrated)
    card = documents.card(request, facts)
    document = documents.contract(request, facts, card)
    _write(made, network, document, card)
    say("Comparing with the source")
    return _compared(request, network, document, made)


def _network(request: Request, source: Frozen) -> Network:
    anatomy = walk.read(source, request.output)
    name = scaling.choose(request.scaling, inside=anatomy.scales)
    explain: Explain = request.explain or "grad-cam"
    if explain == "grad-cam" and anatomy.tail is None:
        raise CannotImport(
            f"A heat map by Grad-CAM cannot be made of this network: {anatomy.why_no_tail}. Choose --explain occlusion "
            f"({OCCLUSION_CELLS**2} more runs for each map) or --explain none."
        )
    meaning = reading.read(request, anatomy.outputs)
    reading.check_exclusive(meaning, anatomy.activation)
    return Network(source, anatomy, meaning, scaling.SCALINGS[name], explain)


def _calibrated(request: Request, network: Network) -> tuple[Network, Calibration]:
    if request.calibrate is None:
        return network, Calibration()
    given = pictures.labelled(Path(request.calibrate), request.labels, network.frozen.size)
    answers = _source_answers(network, given.images)
    found = calibrating.fit(network.reading, network.anatomy.activation, answers, given.truth)
    run = tf.function(lambda pixels: network.features(pixels, network.run(pixels)))
    features = np.concatenate([run(tf.constant(given.images[i : i + 16])).numpy() for i in range(0, len(answers), 16)])
    familiarity = calibrating.familiar(features)
    return replace(network, temperature=found.temperature or 1.0, familiarity=familiarity), replace(
        found, ood_limit=1.0
    )


def _source_answers(network: Network, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Ask the source itself, with the scaling that its caller did, float32[n, k]."""
    parts = [images[i : i + frozen.BATCH] for i in range(0, len(images), frozen.BATCH)]
    return np.concatenate([network.frozen.answer(scaling.apply(network.scaling, part)) for part in parts])


def _facts(request: Request, format_: Format, digest: str, network: Network, calibrated: Calibration) -> Facts:
    grids = {
        "none": None,
        "occlusion": (OCCLUSION_CELLS, OCCLUSION_CELLS),
        "grad-cam": network.anatomy.tail.grid if network.anatomy.tail else None,
    }
    used = next(name for name, known in scaling.SCALINGS.items() if known == network.scaling)
    return Facts(
        format=format_,
        source_digest=digest,
        weights_digest=_weights_digest(network.frozen),
        size=network.frozen.size,
        scaling="the network's own" if network.anatomy.scales and used == "none" else used,
        reading=network.reading,
        explain=network.explain,
        grid=grids[network.explain],
        no_heatmap=network.anatomy.why_no_tail or "none was asked for",
        calibration=calibrated,
        formats=("saved_model.pb", "model.tflite"),
    )


def _weights_digest(source: Frozen) -> str:
    """Return the SHA-256 over all constants of the network, in the graph's order."""
    state = hashlib.sha256()
    for node in source.graph.node:
        if node.op == "Const":
            value = tf.make_ndarray(node.attr["value"].tensor)
            state.update(f"{value.dtype.name} {list(value.shape)}\n".encode())
            state.update(np.ascontiguousarray(value).tobytes())
    return f"sha256:{state.hexdigest()}"


def _write(made: Path, network: Network, document: dict[str, Any], card: str) -> None:
    signatures = network.signatures(contract.text(document))
    export.write_saved_model(made, signatures)
    try:
        export.write_litert(made / "model.tflite", signatures)
    # The converter has an error class of its own, which is not public.
    except Exception as error:
        raise CannotImport(
            "LiteRT does not have an operation of this network, so that it could not be served without TensorFlow."
        ) from error
    extra = documents.write_extra(made, document, card)
    path = extra / "tf_serving_warmup_requests"
    warmup.write(path, document["model"], size=network.frozen.size, explained=network.explain != "none")


def _compared(request: Request, network: Network, document: dict[str, Any], made: Path) -> Outcome:
    """
    Ask source and version about the golden cases, and write those with the source's answers.

    Raises:
        CannotImport: they differ.
    """
    images = pictures.golden(Path(request.golden) if request.golden else None, network.frozen.size)
    answers = _source_answers(network, images)
    how = (network.reading, network.anatomy.activation)
    chosen = reading.golden_choice(*how, answers, network.temperature)
    images, expected = images[chosen], reading.scores(*how, answers[chosen], network.temperature)
    found = export.load_saved_model(made)("serving_default", {"image": images})
    difference = float(np.abs(found["probability"] - expected).max())
    # Written so that "not a number" is a difference too.
    if not difference <= SAME_WITHIN:
        raise CannotImport(
            f"The version's scores differ from the source's by {difference:.2g}, more than {SAME_WITHIN:g}."
        )
    explained = ("explain",) if network.explain != "none" else ()
    try:
        between = export.check(made, contract.text(document), images, signatures=("serving_default", *explained))
    except export.ExportError as error:
        raise CannotImport(f"The two files of the version do not agree: {error}.") from error
    documents.write_golden(made, document, images, expected, found["ood_score"])
    return Outcome(difference, between, document["limitations"])
