"""
The committed SavedModels and the making of models, where TensorFlow is: in the training environment, as subprocesses.

`make test-deps` makes that environment; without it these tests are named among those that did not run.
"""

import json
import os
import subprocess
from typing import Any

import pytest

from tests.training import PYTHON, ROOT, needs_training

pytestmark = needs_training

AGREE = """
import json, sys
from pathlib import Path
import numpy as np
from PIL import Image
from models import artifact, exam, export
from models.catalog import SIDE_PX
from models.phantoms import resize
folder = exam.newest(Path("models"), sys.argv[1])
images = [np.asarray(Image.open(case.path).convert("RGB")) for case in artifact.golden(folder).cases]
images = np.stack([resize(image, SIDE_PX) for image in images])
text = (folder / "assets.extra" / "contract.json").read_text()
print(json.dumps({"difference": export.check(folder, text, images), "cases": len(images)}))
"""

MALFORMED = """
import json, sys
from pathlib import Path
from models import exam
import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import config_pb2
session = tf.compat.v1.Session(graph=tf.Graph())
with session.graph.as_default():
    loaded = tf.compat.v1.saved_model.loader.load(session, ["serve"], str(exam.newest(Path("models"), sys.argv[1])))
definition = loaded.signature_def["serving_default"]
options = config_pb2.CallableOptions(
    feed=[definition.inputs["image"].name], fetch=[definition.outputs["probability"].name]
)
call = session._make_callable_from_options(options)
codes = []
for shape in ([224, 224, 3], [1, 32, 32, 3], [4, 112, 112, 3], [1, 224, 224, 1]):
    try:
        call(np.zeros(shape, np.uint8))
        codes.append("OK")
    except tf.errors.OpError as error:
        codes.append(type(error).__name__)
print(json.dumps({"codes": codes, "fine": call(np.zeros([2, 224, 224, 3], np.uint8))[0].tolist()}))
"""

TRAIN = """
import dataclasses, json, sys, tempfile
from pathlib import Path
from models import artifact, export, pipeline
from models.catalog import PURPOSES
purpose = dataclasses.replace(PURPOSES[sys.argv[1]], training=64, validation=64, test=32, epochs=1)
weights, record = pipeline.train(purpose, pipeline.draw_sets(purpose, lambda line: None), lambda line: None)
with tempfile.TemporaryDirectory() as scratch:
    export.write(Path(scratch, "1"), weights, {"model": purpose.model}, "card")
    print(json.dumps({"weights": record["weights_digest"], "folder": artifact.digest(Path(scratch, "1"))}))
"""


UNFROZEN = """
import json, sys, tempfile
from pathlib import Path
import numpy as np
import keras
import tensorflow as tf
from models import export
network = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 3), keras.layers.GlobalAveragePooling2D()])
def answer(image):
    return {"probability": network(tf.cast(image, tf.float32))}
signatures = {"serving_default": (("image", tf.uint8, [None, 8, 8, 3]), answer)}
try:
    export.write_litert(Path(tempfile.mkdtemp(), "model.tflite"), signatures)
    print(json.dumps({"error": None}))
except export.ExportError as error:
    print(json.dumps({"error": str(error)}))
"""

NOT_FINITE = """
import json, shutil, sys, tempfile
from pathlib import Path
import numpy as np
import tensorflow as tf
from models import export
def answering(value):
    def answer(image):
        first = tf.cast(image[:, 0, 0, 0], tf.float32)
        return {"probability": first * value + tf.constant(value)}
    return {"serving_default": (("image", tf.uint8, [None, 8, 8, 3]), answer)}
errors = []
for value in (float("nan"), 2.0):
    folder = Path(tempfile.mkdtemp(), "1")
    export.write_saved_model(folder, answering(1.0))
    export.write_litert(folder / "model.tflite", answering(value))
    try:
        export.check(folder, "", np.zeros((2, 8, 8, 3), np.uint8), signatures=("serving_default",))
    except export.ExportError as error:
        errors.append(str(error))
print(json.dumps({"errors": errors}))
"""

IN_INT8 = """
import json, tempfile
from pathlib import Path
import numpy as np
import tensorflow as tf
from ai_edge_litert import schema_py_generated as schema
from models import export, int8
from models.importing.litert_edit import parse
kernel = np.random.default_rng(1).normal(size=(3, 3, 3, 64)).astype(np.float32)
images = np.random.default_rng(2).integers(0, 256, (3, 8, 8, 3), np.uint8)
def answering(value):
    def answer(image):
        layer = tf.nn.relu(tf.nn.conv2d(tf.cast(image, tf.float32) / 255, tf.constant(kernel), 1, "SAME"))
        return {"probability": tf.sigmoid(tf.reduce_mean(layer, [1, 2, 3]) - 1.5) + value}
    count = ("n", tf.int32, [None])
    return {
        "serving_default": (("image", tf.uint8, [None, 8, 8, 3]), answer),
        "contract": (count, lambda n: {"json": tf.fill(tf.shape(n), tf.constant("{}"))}),
    }
def made(value, in_int8):
    folder = Path(tempfile.mkdtemp(), "1")
    export.write_saved_model(folder, answering(0.0))
    export.write_litert(folder / "model.tflite", answering(value), in_int8=in_int8)
    return folder
def checked(folder, within):
    try:
        return export.check(folder, "{}", images, signatures=("serving_default",), within=within)
    except export.ExportError as error:
        return str(error)
floating, rounded = made(0.0, False) / "model.tflite", made(0.0, True) / "model.tflite"
types = [tensor.type for graph in parse(rounded.read_bytes()).subgraphs for tensor in graph.tensors]
print(json.dumps({
    "bytes": [path.stat().st_size for path in (floating, rounded)],
    "int8": types.count(schema.TensorType.INT8),
    "float": checked(floating.parent, {}),
    "within": checked(rounded.parent, int8.WITHIN),
    "strictly": checked(rounded.parent, {}),
    "moved": checked(made(0.06, True), int8.WITHIN),
    "nan": checked(made(float("nan"), True), int8.WITHIN),
}))
"""

VERSION_IN_INT8 = """
import dataclasses, json, tempfile
from pathlib import Path
import numpy as np
import tensorflow as tf
from models import artifact, export, familiarity, golden, graph, pipeline
from models.catalog import PURPOSES
from models.phantoms import dataset
from models.weights import Convolution, Weights
rng = np.random.default_rng(1)
def convolution(given, made, stride):
    kernel = rng.normal(size=(3, 3, given, made)) / np.sqrt(9 * given)
    return Convolution(kernel.astype(np.float32), np.zeros(made, np.float32), stride)
purpose = PURPOSES["cancer"]
head = (rng.normal(size=32) / 4).astype(np.float32)
weights = Weights(False, (convolution(3, 8, 4), convolution(8, 32, 4)), head, 0.0, 1.0, ())
images = dataset("cancer", 48, seed=1, side_px=224).images
found = {name: value.numpy() for name, value in graph.features(weights, tf.constant(images)).items()}
modes = np.array(["one"] * len(images))
weights = dataclasses.replace(weights, familiarity=tuple(familiarity.fit(found[name], modes) for name in graph.PARTS))
# Nobody trained this network: no phantom is clear to it, and any will do to see that both files are asked about it.
golden.is_clear = lambda *_: True
golden.BATCH_MAX = 16
record = json.loads(Path("models/cancer/training.json").read_text()) | {"grid": [14, 14]}
home = Path(tempfile.mkdtemp())
pipeline.write(home, purpose, weights, record, lambda line: None, in_int8=True)
folder = home / str(purpose.version)
cases = json.loads((folder / "assets.extra/golden/cases.json").read_text())
run = export.load_litert(folder / "model.tflite")
read = lambda name: (folder / "assets.extra" / name).read_text()
pictures = [golden.resize(np.asarray(golden.Image.open(case.path).convert("RGB")), 224)[None]
    for case in artifact.golden(folder).cases]
answers = [float(run("serving_default", {"image": picture})["probability"][0]) for picture in pictures]
print(json.dumps({
    "cost": json.loads((home / "training.json").read_text())["int8"],
    "bytes": (folder / "model.tflite").stat().st_size,
    "limitations": json.loads(read("contract.json"))["limitations"],
    "cards": [read("card.md"), read("card.fr.md")],
    "tolerance": cases["tolerance"],
    "away": max(abs(case["probability"] - answer) for case, answer in zip(cases["cases"], answers)),
    "manifest": (home / "servedmodel.yaml").read_text(),
}))
"""


def run(code: str, *arguments: str) -> Any:
    """Run *code* in the training environment and return what its last line of output says."""
    done = subprocess.run(
        [PYTHON, "-c", code, *arguments],
        cwd=ROOT,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2"},
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("model", ["anemia", "cancer"])
def test_saved_model_and_litert_file_agree(model: str) -> None:
    """By TensorFlow Serving's loader: all outputs of both files are finite and equal within 1e-4."""
    found = run(AGREE, model)
    assert found["cases"] >= 20
    assert found["difference"] <= 1e-4


@pytest.mark.parametrize("model", ["anemia", "cancer"])
def test_saved_model_answers_malformed_tensors_with_an_error(model: str) -> None:
    """A tensor of another rank or size is INVALID_ARGUMENT, where a bare convolution would end the process."""
    found = run(MALFORMED, model)
    assert found["codes"] == ["InvalidArgumentError"] * 4
    assert len(found["fine"]) == 2


def test_training_twice_gives_the_same_bytes() -> None:
    """Two processes with one seed make the same weights and the same version folder."""
    assert run(TRAIN, "cancer") == run(TRAIN, "cancer")


def test_model_with_variables_is_not_converted() -> None:
    """Converted unfrozen, a Keras 3 model answers NaN without a complaint; here it is an error that says so."""
    assert run(UNFROZEN)["error"] == (
        "serving_default reads a variable, which would be converted to NaN: freeze it first"
    )


def test_answers_that_are_not_finite_or_not_equal_are_refused() -> None:
    """Whatever made them, NaN and differing answers never become a version."""
    errors = run(NOT_FINITE)["errors"]
    assert errors[0] == "serving_default/probability is not finite"
    assert errors[1].startswith("SavedModel and LiteRT file differ by 1")


def test_int8_is_smaller_and_loosens_no_other_bound() -> None:
    """The file really holds int8, differs more than float may and less than 8 bits may; NaN passes no bound."""
    found = run(IN_INT8)
    floating, rounded = found["bytes"]
    assert rounded < floating - 3000
    assert found["int8"] == 1
    assert found["float"] <= 1e-4 < found["within"] <= 0.05
    assert found["strictly"].startswith("SavedModel and LiteRT file differ by ")
    assert found["moved"].startswith("SavedModel and LiteRT file differ by 0.06")
    assert found["nan"] == "serving_default/probability is not finite"


def test_version_in_int8_says_so_and_what_it_costs() -> None:
    """Record, cards, contract, golden cases and manifest are those of the 8-bit file, with its own tolerance."""
    found = run(VERSION_IN_INT8)
    cost = found["cost"]
    assert cost["bytes"]["int8"] == found["bytes"] < cost["bytes"]["float"]
    assert 0 < cost["differences"]["probability"] <= found["tolerance"] == 0.05
    assert len(found["limitations"]) == 1
    for card in found["cards"]:
        assert f"{found['bytes']:,}" in card
        assert f"{cost['differences']['ood_score']:.4f} | 0.05 |" in card
    assert found["away"] <= 1e-5
    assert "maxDifference: 0.05" in found["manifest"]
