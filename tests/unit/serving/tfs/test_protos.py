"""The official messages come without TensorFlow."""

import subprocess
import sys

PROGRAM = """
import sys
import serving.tfs.protos, serving.tfs.client
assert "tensorflow" not in sys.modules, "the bare package was left behind"
heavy = [name for name in sys.modules if name.startswith("tensorflow.") and not name.endswith("_pb2")]
folders = {"tensorflow.core" + rest for rest in ("", ".framework", ".protobuf", ".example")}
assert set(heavy) <= folders, heavy
try:
    import tensorflow
except ModuleNotFoundError:
    print("clean")
"""


def test_protos_leave_no_tensorflow_behind() -> None:
    """After the import, `tensorflow` is as absent as it was before."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "clean"), done.stderr
