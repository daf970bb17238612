"""LiteRT files become versions without TensorFlow: the same operations, with ours before and after them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter

from models import artifact, verification
from models.importing import documents, importer, litert_edit, litert_source
from models.importing.litert_edit import Writer
from models.importing.request import CannotImport
from tests.unit.models.test_import_reading import RISK, request

FLOAT = schema.TensorType.FLOAT32
SIDE = 12


def network(
    *, outputs: int = 1, ending: str | None = "LOGISTIC", rows: int = -1, side: int = SIDE, inputs: int = 1
) -> bytes:
    """Return a small network as a converter would write it: mean over the picture, a dense layer, an activation."""
    model = schema.ModelT(
        version=3, operatorCodes=[], subgraphs=[], buffers=[schema.BufferT()], metadata=[], signatureDefs=[]
    )
    writer = Writer.new(model, "main")
    pixels = writer.tensor("pixels", [rows, side, side, 3], FLOAT)
    axes = writer.constant(np.array([1, 2], np.int32))
    mean = writer.operate("MEAN", [pixels, axes], writer.tensor("mean", [rows, 3], FLOAT), schema.ReducerOptionsT())
    weights = np.linspace(-6, 8, 3 * outputs, dtype=np.float32).reshape(outputs, 3)
    kernel, bias = writer.constant(weights), writer.constant(np.linspace(-1, 1, outputs, dtype=np.float32))
    told = writer.operate(
        "FULLY_CONNECTED",
        [mean, kernel, bias],
        writer.tensor("logits", [rows, outputs], FLOAT),
        schema.FullyConnectedOptionsT(),
    )
    if ending is not None:
        options = schema.SoftmaxOptionsT(beta=1.0) if ending == "SOFTMAX" else None
        told = writer.operate(ending, [told], writer.tensor("told", [rows, outputs], FLOAT), options)
    writer.subgraph.inputs = [pixels, *(writer.tensor("more", [1], FLOAT) for _ in range(inputs - 1))]
    writer.subgraph.outputs = [told]
    return litert_edit.pack(model)


def put(folder: Path, content: bytes, **wishes: Any) -> importer.Imported:
    """Import a file."""
    path = folder / "model.tflite"
    path.write_bytes(content)
    wished = {"scaling": "unit"} | wishes
    return importer.run(request(source=str(path), **wished), folder / "out", lambda _: None)


def answers(content: bytes, images: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Ask a file itself about uint8[n, h, w, 3], divided by 255 here."""
    interpreter = Interpreter(model_content=content)
    interpreter.allocate_tensors()
    rows = []
    for image in images:
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], (image[None] / 255).astype(np.float32))
        interpreter.invoke()
        rows.append(interpreter.get_tensor(interpreter.get_output_details()[0]["index"])[0].copy())
    return np.stack(rows)


IMAGES = (
    np.random.default_rng(0).integers(0, 256, (4, SIDE, SIDE, 3), dtype=np.uint8)
    // np.array([1, 2, 4, 1], np.uint8)[:, None, None, None]
)


def asked(folder: Path, images: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Ask a version about images in one run."""
    interpreter = Interpreter(model_path=str(folder / "model.tflite"))
    return np.asarray(interpreter.get_signature_runner("serving_default")(image=images)["probability"])


@pytest.mark.parametrize(
    ("outputs", "ending", "wishes"),
    [(1, "LOGISTIC", {}), (2, "SOFTMAX", {}), (1, None, {"output": "logit"}), (2, None, {"output": "logit"})],
)
def test_version_answers_as_its_source(
    tmp_path: Path, outputs: int, ending: str | None, wishes: dict[str, Any]
) -> None:
    """One number or two, as probabilities or logits: the score is the source's, for several images at once."""
    content = network(outputs=outputs, ending=ending)
    told = answers(content, IMAGES)
    if ending is None:
        logit = told[:, -1] - (told[:, 0] if outputs == 2 else 0)
        told = 1 / (1 + np.exp(-logit))[:, None]
    found = put(tmp_path, content, **wishes)
    assert asked(found.folder, IMAGES) == pytest.approx(told[:, -1], abs=1e-6)


def test_classes_keep_their_likeliest(tmp_path: Path) -> None:
    """The band of each answer is the class that the source finds likeliest."""
    content = network(outputs=3, ending="SOFTMAX")
    found = put(tmp_path, content, **RISK)
    assert (asked(found.folder, IMAGES) * 3).astype(int).tolist() == answers(content, IMAGES).argmax(-1).tolist()


def test_version_is_whole_and_vouched_for(tmp_path: Path) -> None:
    """Contract, golden cases and digest are in order, and a manifest serves it."""
    found = put(tmp_path, network())
    verification.check_contents(found.folder)
    assert verification.vouched(found.folder) == found.digest == artifact.digest(found.folder)
    assert artifact.differences(found.folder) == []
    assert found.manifest is not None


def test_second_version_leaves_the_manifest_alone(tmp_path: Path) -> None:
    """What is served changes when a person says so."""
    first = put(tmp_path, network())
    assert first.manifest is not None
    before = first.manifest.read_bytes()
    second = put(tmp_path, network(), version=2)
    assert (second.manifest, first.manifest.read_bytes()) == (None, before)


def test_file_for_one_row_takes_one_row(tmp_path: Path) -> None:
    """Where the source fixes the batch, the version says so in its signature, and to people."""
    found = put(tmp_path, network(rows=1))
    runner = Interpreter(model_path=str(found.folder / "model.tflite")).get_signature_runner("serving_default")
    assert runner.get_input_details()["image"]["shape_signature"].tolist() == [1, SIDE, SIDE, 3]
    assert any("One image a run" in sentence for sentence in found.limitations)
    many = put(tmp_path, network(), version=2)
    runner = Interpreter(model_path=str(many.folder / "model.tflite")).get_signature_runner("serving_default")
    assert runner.get_input_details()["image"]["shape_signature"].tolist() == [-1, SIDE, SIDE, 3]


def test_blue_comes_first_where_it_did(tmp_path: Path) -> None:
    """The scaling after Caffe turns the channels, in the graph."""
    content = network()
    found = put(tmp_path, content, scaling="caffe", output=None, golden=str(grey(tmp_path)))
    turned = IMAGES[..., ::-1].astype(np.float32) - np.array([103.939, 116.779, 123.68], np.float32)
    assert asked(found.folder, IMAGES) == pytest.approx(answers(content, turned * 255)[:, 0], abs=1e-5)


def grey(folder: Path) -> Path:
    """Write a few pictures for golden cases."""
    from PIL import Image

    (folder / "pictures").mkdir()
    for level in (0, 90, 255):
        Image.new("RGB", (20, 30), (level, level, level)).save(folder / "pictures" / f"{level}.png")
    return folder / "pictures"


def test_picture_of_another_size_is_an_error(tmp_path: Path) -> None:
    """The graph begins with a shape that nothing else fits."""
    found = put(tmp_path, network(rows=1))
    with pytest.raises((RuntimeError, ValueError)):
        asked(found.folder, np.zeros((1, SIDE, SIDE - 1, 3), np.uint8))


def test_risk_without_labelled_pictures_is_as_sure_as_chance(tmp_path: Path) -> None:
    """Nobody measured it, so nothing better is told."""
    import json

    found = put(tmp_path, network(outputs=3, ending="SOFTMAX"), **RISK)
    told = json.loads((found.folder / "assets.extra" / "contract.json").read_text())
    assert told["confidence"] == {"method": "table", "edges": [0.0, 1.0], "values": [0.3333]}
    assert any("chance" in sentence for sentence in told["limitations"])


@pytest.mark.parametrize(
    ("content", "wishes", "named"),
    [
        (network(inputs=2), {}, "2 inputs"),
        (network(ending=None), {}, "--output"),
        (network(), {"output": "logit"}, "no logits"),
        (network(), {"scaling": None}, "--scaling"),
        (network(outputs=4, ending="SOFTMAX"), {}, "4 numbers"),
        (network(side=-1), {}, "--input-size"),
        (network(), {"input_size": (64, 64)}, "leave --input-size"),
        (network(), {"explain": "grad-cam"}, "no derivatives"),
        (network()[:200], {}, "damaged"),
        (network(side=5000), {}, "5000 x 5000"),
        (network(outputs=2), {}, "2 sigmoids"),
        (network(ending="SOFTMAX"), {}, "1 for every picture"),
    ],
    ids=[
        "inputs",
        "logits or not",
        "not logits",
        "scaling",
        "labels",
        "size",
        "fixed size",
        "explain",
        "damaged",
        "huge",
        "sigmoids",
        "softmax of one",
    ],
)
def test_file_that_cannot_be_a_version_is_refused(
    tmp_path: Path, content: bytes, wishes: dict[str, Any], named: str
) -> None:
    """The sentence names what is wrong, or the option that would help; nothing is left."""
    with pytest.raises(CannotImport, match=named):
        put(tmp_path, content, **wishes)
    assert not list((tmp_path / "out").glob("*/*"))


def test_labels_that_look_alike_keep_their_golden_cases(tmp_path: Path) -> None:
    """Files are named after labels; no two are one file."""
    found = put(tmp_path, network(), labels=("a B", "A-b"), thresholds=(0.35,))
    cases = artifact.golden(found.folder).cases
    assert {case.label for case in cases} == {"a B", "A-b"}
    assert len({case.path for case in cases}) == len(cases)


def test_model_with_a_number_for_a_name_has_a_manifest(tmp_path: Path) -> None:
    """In YAML, 123 and `true` are no texts."""
    for name in ("123", "true"):
        found = put(tmp_path, network(), name=name)
        assert verification.vouched(found.folder) == found.digest


def test_file_whose_operations_go_in_a_circle_is_read_to_an_end() -> None:
    """Neither the search for scaling nor that for the ending goes round for ever."""
    model = schema.ModelT(operatorCodes=[], subgraphs=[], buffers=[schema.BufferT()], signatureDefs=[])
    writer = Writer.new(model, "main")
    one, other = (writer.tensor(name, [1, 3], FLOAT) for name in ("one", "other"))
    for source, result in ((one, other), (other, one)):
        writer.operate("RESHAPE", [source], result)
    writer.subgraph.inputs, writer.subgraph.outputs = [one], [other]
    assert litert_source._scales(model) is False
    assert litert_source._ending(model, request(output="probability")) == "probability"


def test_file_whose_parts_do_not_fit_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the reader of the schema meets in it becomes a sentence."""
    (tmp_path / "a.tflite").write_bytes(network())
    parsed = litert_edit.parse(network())
    parsed.subgraphs[0].tensors = []
    monkeypatch.setattr(litert_source, "parse", lambda _: parsed)
    with pytest.raises(CannotImport, match="damaged"):
        litert_source.load(tmp_path / "a.tflite", request())


def test_labelled_pictures_that_change_nothing_are_told_so(tmp_path: Path) -> None:
    """Calibration that was measured is not said to be unmeasured."""
    from PIL import Image

    for level, label in ((10, "No"), (250, "Yes")):
        (tmp_path / "labelled" / label).mkdir(parents=True)
        for number in range(10):
            Image.new("RGB", (20, 30), (level, number, level)).save(tmp_path / "labelled" / label / f"{number}.png")
    found = put(tmp_path, network(), calibrate=str(tmp_path / "labelled"))
    assert any("nothing was fitted" in sentence for sentence in found.limitations)
    assert "20 labelled pictures" in artifact.card(found.folder)


def test_custom_operations_are_refused(tmp_path: Path) -> None:
    """Code that LiteRT does not bring is not looked for."""
    model = litert_edit.parse(network())
    model.operatorCodes[0].customCode = b"Surprise"
    with pytest.raises(CannotImport, match="Surprise"):
        litert_source._refuse_unknown(model)


def test_several_subgraphs_are_refused() -> None:
    """Loops come as subgraphs, and may never end."""
    model = litert_edit.parse(network())
    model.subgraphs.append(model.subgraphs[0])
    with pytest.raises(CannotImport, match="subgraphs"):
        litert_source._refuse_unknown(model)


@pytest.mark.parametrize(
    ("scores", "left"),
    [([0.1, 0.3, 0.7], []), ([0.1, 0.2], ["MEDIUM or HIGH"]), ([0.9], ["LOW or MEDIUM"])],
)
def test_label_without_a_golden_case_is_told(scores: list[float], left: list[str]) -> None:
    """Golden cases of one label would pass a server that always answers it; a score at a threshold is above it."""
    found = documents.unproved(["LOW", "MEDIUM", "HIGH"], [0.3, 0.7], np.array(scores))
    assert [sentence.split(" answered ")[1].split(":")[0] for sentence in found] == left
