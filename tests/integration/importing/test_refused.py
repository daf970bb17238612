"""Models that must not be imported: each refusal is a sentence that says why, and nothing of the file was run."""

import json
from typing import Any

import pytest

from tests.integration.importing.conftest import Foreign, in_training, request
from tests.training import needs_training

pytestmark = [*needs_training, pytest.mark.xdist_group("importing")]

BUILD = """
import json, sys, tempfile
from pathlib import Path
from models.importing import build
from models.importing.request import CannotImport, Request
told = {}
for name, (format_, text) in json.loads(sys.argv[1]).items():
    with tempfile.TemporaryDirectory() as scratch:
        try:
            build.build(Request.from_json(text), format_, "sha256:" + "0" * 64, Path(scratch, "made"), lambda _: None)
            told[name] = "not refused"
        except CannotImport as error:
            told[name] = str(error)
print(json.dumps(told))
"""

CASES: dict[str, tuple[str, str, dict[str, Any], str]] = {
    "no convolution": ("dense.keras", "keras", {"scaling": "unit"}, "no convolution"),
    "two inputs": ("two-inputs.keras", "keras", {"scaling": "unit"}, "2 inputs"),
    "a Lambda in .keras": ("lambda.keras", "keras", {}, "class Lambda"),
    "a Lambda in .h5": ("lambda.h5", "h5", {}, "class Lambda"),
    "a Lambda in HDF5 that is an archive, too": ("both.h5", "h5", {}, "class Lambda"),
    "an archive with another ending": ("dense.h5", "keras", {"scaling": "unit"}, "no convolution"),
    "labels": ("mobile.keras", "keras", {}, "3 numbers"),
    "labels the other way": (
        "vgg.h5",
        "h5",
        {"task": "risk", "labels": ("A", "B", "C"), "scaling": "unit"},
        "--thresholds",
    ),
    "scaling": ("vgg.h5", "h5", {}, "--scaling"),
    "size": ("vgg.h5", "h5", {"scaling": "unit", "input_size": (64, 64)}, "leave --input-size"),
    "a file read": ("reads-a-file", "saved_model", {"scaling": "unit"}, "operation ReadFile"),
    "Python called": ("calls-python", "saved_model", {"scaling": "unit"}, "PyFunc"),
    "a signature": ("saved", "saved_model", {"scaling": "unit", "signature": "none"}, "no signature of that name"),
    "no logits": ("vgg.h5", "h5", {"scaling": "unit", "output": "logit"}, "no logits"),
}

SAFETY = """
import json, sys
from pathlib import Path
import h5py
import numpy as np
import tensorflow as tf
from tensorflow.core.framework import variable_pb2
from tensorflow.core.protobuf import meta_graph_pb2
from models.importing import keras_files, saved_models
from models.importing.request import CannotImport
told = {}
folder = Path(sys.argv[1])
other = folder / "other.h5"
with h5py.File(other, "w") as file:
    file["secret"] = np.zeros(3)
def made(name, write):
    with h5py.File(folder / f"{name}.h5", "w") as file:
        write(file)
    with h5py.File(folder / f"{name}.h5", "r") as file:
        try:
            keras_files.check_weights(file)
            told[name] = "not refused"
        except CannotImport as error:
            told[name] = str(error)
def virtual(file):
    layout = h5py.VirtualLayout((3,), "f8")
    layout[:] = h5py.VirtualSource(str(other), "secret", (3,))
    file.create_virtual_dataset("weights", layout)
def bomb(file):
    file.create_dataset("weights", (1 << 15, 1 << 15), "f4", compression="gzip", chunks=(1024, 1024))
made("fine", lambda file: file.create_group("layer").create_dataset("weights", data=np.zeros(3)))
made("external", lambda file: file.__setitem__("weights", h5py.ExternalLink(str(other), "/secret")))
made("soft", lambda file: file.__setitem__("weights", h5py.SoftLink("/weights")))
made("virtual", virtual)
made("elsewhere", lambda file: file.create_dataset("weights", (3,), "f8", external=[(str(folder / "raw"), 0, 24)]))
made("bomb", bomb)
made("strings", lambda file: file.create_dataset("weights", data=["a" * 9], dtype=h5py.string_dtype()))
def described(name, document):
    try:
        keras_files.check_description(document)
        told[name] = "not refused"
    except CannotImport as error:
        told[name] = str(error)
dense = {"module": "keras.layers", "class_name": "Dense", "config": {"units": 1}}
deep = dense
for _ in range(300):
    deep = {"config": deep}
described("keras", {"class_name": "Sequential", "config": {"layers": [dense]}, "compile_config": {"class_name": "X"}})
described("own", {"class_name": "Sequential", "config": {"layers": [{"class_name": "Mine", "config": {}}]}})
described("module", {"class_name": "Sequential", "config": {"layers": [dense | {"module": "subprocess"}]}})
described("function", {"class_name": "Dense", "config": {"activation": {"class_name": "function", "config": "run"}}})
described("lookup", {"class_name": "StringLookup", "config": {"vocabulary": "/etc/passwd"}})
described("deep", deep)
def around(compiled):
    inner = {"class_name": "Sequential", "config": {"layers": []}, "compile_config": compiled}
    return {"class_name": "Model", "config": {"layers": [inner]}}
described("inner loss", around({"class_name": "X"}))
adam = {"module": "keras.optimizers", "class_name": "Adam", "config": {}}
described("inner Adam", around({"optimizer": adam}))
described("no name", {"class_name": ["Dense"], "config": {}})
def loaded(name, change):
    graph = tf.Graph()
    with graph.as_default():
        place = tf.raw_ops.PlaceholderWithDefault(input="model", shape=[], name="place")
        weights = tf.raw_ops.VarHandleOp(dtype=tf.float32, shape=[], shared_name="w")
        for operation, prefix in (("ours", place), ("theirs", tf.constant("/secret"))):
            read = tf.raw_ops.RestoreV2(prefix=prefix, tensor_names=["w"], shape_and_slices=[""], dtypes=[tf.float32])
            with graph.control_dependencies([tf.raw_ops.AssignVariableOp(resource=weights, value=read[0])]):
                tf.no_op(name=operation)
        value = tf.raw_ops.ReadVariableOp(resource=weights, dtype=tf.float32)
        written = tf.raw_ops.SaveV2(
            prefix=tf.constant("/surprise"), tensor_names=["w"], shape_and_slices=[""], tensors=[value], name="written"
        )
    meta = meta_graph_pb2.MetaGraphDef(graph_def=graph.as_graph_def())
    meta.saver_def.filename_tensor_name, meta.saver_def.restore_op_name = "place:0", "ours"
    change(meta)
    try:
        saved_models.check_graph(meta)
        told[name] = "not refused"
    except CannotImport as error:
        told[name] = str(error)
def local(meta):
    variable = variable_pb2.VariableDef(variable_name="w", initializer_name="written")
    meta.collection_def["local_variables"].bytes_list.value.append(variable.SerializeToString())
loaded("restored", lambda meta: None)
loaded("restored elsewhere", lambda meta: setattr(meta.saver_def, "restore_op_name", "theirs"))
loaded("written as it is read", lambda meta: setattr(meta.saver_def, "restore_op_name", "written"))
loaded("written by a table", lambda meta: meta.collection_def["table_initializer"].node_list.value.append("written"))
loaded("written by a variable", local)
print(json.dumps(told))
"""


@pytest.fixture(scope="module")
def refusals(foreign: Foreign) -> Any:
    """Try every bad import in one process."""
    # An archive is read from its end, and HDF5 from its beginning.
    parts = [(foreign.folder / name).read_bytes() for name in ("lambda.h5", "mobile.keras")]
    (foreign.folder / "both.h5").write_bytes(b"".join(parts))
    (foreign.folder / "dense.h5").write_bytes((foreign.folder / "dense.keras").read_bytes())
    asked = {
        name: (format_, request(foreign.folder, file, **wishes).to_json())
        for name, (file, format_, wishes, _) in CASES.items()
    }
    return in_training(BUILD, json.dumps(asked))


@pytest.mark.parametrize("name", CASES)
def test_bad_model_is_refused_with_its_reason(refusals: Any, name: str) -> None:
    """What is wrong, or the option that would help."""
    assert CASES[name][3] in refusals[name]


@pytest.fixture(scope="module")
def safety(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Check every malicious file and description in one process."""
    return in_training(SAFETY, str(tmp_path_factory.mktemp("malice")))


@pytest.mark.parametrize(
    ("name", "named"),
    [
        ("fine", "not refused"),
        ("external", "link"),
        ("soft", "link"),
        ("virtual", "another file"),
        ("elsewhere", "another file"),
        ("bomb", "unpack"),
        ("keras", "not refused"),
        ("own", "class Mine"),
        ("module", "class Dense"),
        ("function", "class function"),
        ("lookup", "class StringLookup"),
        ("deep", "too deeply"),
        ("strings", "something else than numbers"),
        ("inner loss", "class X"),
        ("inner Adam", "not refused"),
        ("no name", "no name"),
        ("restored", "not refused"),
        ("restored elsewhere", "operation RestoreV2"),
        ("written as it is read", "operation SaveV2"),
        ("written by a table", "operation SaveV2"),
        ("written by a variable", "operation SaveV2"),
    ],
)
def test_file_that_reaches_out_of_itself_is_refused(safety: Any, name: str, named: str) -> None:
    """Links, data elsewhere, bombs, classes that are not Keras' own: each is found before anything is loaded."""
    assert named in safety[name]
