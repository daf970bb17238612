"""
Our small protos against TensorFlow's own: every field of ours has the official number, type and label.

TensorFlow lives in the training environment, so that a plain installation stays small; the comparison runs there, in a
process of its own.
"""

import json
import subprocess
from pathlib import Path

from tests.training import PYTHON, ROOT, needs_training

pytestmark = needs_training

# Says the fields of the messages and enums of the files named on standard input, from whichever set this Python sees.
DESCRIBE = """
import json, sys
import serving.tfs.protos
from google.protobuf import descriptor_pool
from serving.tfs.tensorflow_protos import _folders
pool = descriptor_pool.Default()
found = {"": _folders()["tensorflow"]}
for name in json.load(sys.stdin):
    try:
        message = pool.FindMessageTypeByName(name)
    except KeyError:
        found[name] = {value.name: value.number for value in pool.FindEnumTypeByName(name).values}
        continue
    found[name] = {
        field.name: [field.number, field.type, field.is_repeated,
                     field.message_type.full_name if field.message_type else "",
                     field.enum_type.full_name if field.enum_type else "",
                     field.containing_oneof.name if field.containing_oneof else ""]
        for field in message.fields
    }
json.dump(found, sys.stdout)
"""

NAMES = [
    "tensorflow.DataType",
    "tensorflow.TensorShapeProto",
    "tensorflow.TensorShapeProto.Dim",
    "tensorflow.TensorProto",
    "tensorflow.TensorInfo",
    "tensorflow.SignatureDef",
    "tensorflow.SignatureDef.InputsEntry",
    "tensorflow.NamedTensorProto",
    "tensorflow.RunOptions",
    "tensorflow.RunMetadata",
    "tensorflow.Example",
    "tensorflow.Features",
    "tensorflow.Feature",
    "tensorflow.BytesList",
    "tensorflow.FloatList",
    "tensorflow.Int64List",
    "tensorflow.error.Code",
]


def describe(python: Path) -> dict[str, dict[str, object]]:
    """Return the fields by message, as *python* sees them."""
    done = subprocess.run(
        [str(python), "-c", DESCRIBE],
        input=json.dumps(NAMES),
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, dict[str, object]] = json.loads(done.stdout)
    return found


def test_slim_protos_agree_with_tensorflow() -> None:
    """Every field and value of ours is TensorFlow's; that the two sets really are two is checked as well."""
    ours, official = describe(ROOT / ".venv" / "bin" / "python"), describe(PYTHON)
    assert ours.pop("") != official.pop("")
    for name, fields in ours.items():
        for field, said in fields.items():
            assert official[name].get(field) == said, f"{name}.{field}"


def test_slim_protos_leave_tensorflow_usable() -> None:
    """Where TensorFlow is installed, the messages come from it, and importing it afterwards works."""
    program = (
        "import sys; from serving.tfs.protos import TensorProto; assert 'tensorflow' not in sys.modules; "
        "import tensorflow as tf; from serving.tfs.tensors import from_array; import numpy as np; "
        "assert tf.make_ndarray(from_array(np.eye(3, dtype='f4'))).tolist() == np.eye(3).tolist(); print('usable')"
    )
    done = subprocess.run(
        [str(PYTHON), "-c", program], capture_output=True, text=True, cwd=ROOT, timeout=120, check=False
    )
    assert (done.returncode, done.stdout.strip()) == (0, "usable"), done.stderr
