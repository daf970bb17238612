"""What the gateway's process loads."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]

PROGRAM = """
import json, sys
import gateway.__main__
import serving.tfs.protos
found = {name: getattr(module, "__file__", None) for name, module in list(sys.modules.items())}
print(json.dumps(found))
"""


def test_gateway_imports_no_tensorflow_and_speaks_its_official_messages() -> None:
    """The messages are the official package's; of TensorFlow there are only our few compiled messages."""
    found = subprocess.run([sys.executable, "-c", PROGRAM], cwd=ROOT, capture_output=True, text=True, check=True)
    modules: dict[str, str | None] = json.loads(found.stdout)
    assert "tensorflow_serving.apis.predict_pb2" in modules
    assert not {"keras", "tensorflow.python", "ai_edge_litert", "torch", "sqlalchemy", "asyncpg"} & modules.keys()
    foreign = [
        name
        for name, path in modules.items()
        if name.split(".")[0] == "tensorflow"
        and path is not None
        and not path.startswith(str(ROOT / "serving" / "tfs"))
    ]
    assert foreign == []
