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
