"""
Versions of a little model, `trial`, that pass every proof before they get requests, and are bad at those alone.

They are LiteRT files written operation by operation and brought in like anybody's. Their golden cases are dark
pictures; what is wrong with them shows with bright ones.
"""

import base64
import io
import json
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from PIL import Image

from models.importing import importer, litert_edit
from models.importing.litert_edit import Writer
from models.importing.request import Request
from serving.operator.pod import USER
from tests.cluster.cluster import Cluster
from tests.cluster.workloads import Manifest, pod

MODEL, CLAIM = "trial", "models"
QUIRKY = {"name": "embedded", "args": ["--tfs_quirks=true"]}
"""Our server, as bad as TensorFlow Serving where that hurts: it ignores SIGTERM, and its health says yes for ever."""
SIDE = 96
_FLOAT, _INT = schema.TensorType.FLOAT32, schema.TensorType.INT32
_PIXELS = (1, SIDE, SIDE, 3)
_CHANNELS = 64
_DARK, _BRIGHT = (0, 20, 40), 230

Step = Callable[[Writer, int], int]
"""Appends operations to a picture's mean colour, float32[1, 3], and returns the tensor that takes its place."""


@dataclass(frozen=True)
class Made:
    """A version folder, with the digest that its manifest names."""

    number: int
    digest: str

    @property
    def entry(self) -> Manifest:
        """What a ServedModel's spec says of it."""
        address = f"pvc://{CLAIM}/{MODEL}/{self.number}"
        return {"version": self.number, "storageUri": address, "digest": self.digest}


def sound(writer: Writer, mean: int) -> int:
    """Do nothing more."""
    return mean


def erring(writer: Writer, mean: int) -> int:
    """Look a row up by how bright the picture is, in a table that ends before bright ones."""
    red = writer.operate(
        "MUL",
        [mean, writer.constant(np.array([10.0], np.float32))],
        writer.tensor("tens", [1, 3], _FLOAT),
        schema.MulOptionsT(),
    )
    cast = schema.CastOptionsT(inDataType=_FLOAT, outDataType=_INT)
    row = writer.operate("CAST", [red], writer.tensor("row", [1, 3], _INT), cast)
    table = writer.constant(np.ones(5, np.float32))
    found = writer.operate("GATHER", [table, row], writer.tensor("found", [1, 3], _FLOAT), schema.GatherOptionsT())
    return writer.operate("MUL", [mean, found], writer.tensor("known", [1, 3], _FLOAT), schema.MulOptionsT())


def slow(writer: Writer, mean: int) -> int:
    """Multiply large matrices for nothing, which takes about half a second on one core."""
    size = 512
    matrix = writer.constant(np.full((size, size), 1.0 / size, np.float32))
    tiles = writer.constant(np.array([size, 1], np.int32))
    one = writer.constant(np.ones((1, size), np.float32))
    value = writer.operate("TILE", [one, tiles], writer.tensor("tiled", [size, size], _FLOAT))
    for number in range(60):
        made = writer.tensor(f"product-{number}", [size, size], _FLOAT)
        value = writer.operate("BATCH_MATMUL", [value, matrix], made, schema.BatchMatMulOptionsT())
    axes = writer.constant(np.array([0, 1], np.int32))
    unity = writer.operate("MEAN", [value, axes], writer.tensor("unity", [], _FLOAT), schema.ReducerOptionsT())
    return writer.operate("MUL", [mean, unity], writer.tensor("same", [1, 3], _FLOAT), schema.MulOptionsT())


def network(step: Step) -> bytes:
    """Return a LiteRT file: the picture's mean colour, *step*, a dense layer, a sigmoid."""
    model = schema.ModelT(
        version=3, operatorCodes=[], subgraphs=[], buffers=[schema.BufferT()], metadata=[], signatureDefs=[]
    )
    writer = Writer.new(model, "main")
    pixels = writer.tensor("pixels", _PIXELS, _FLOAT)
    axes = writer.constant(np.array([1, 2], np.int32))
    mean = writer.operate("MEAN", [pixels, axes], writer.tensor("mean", [1, 3], _FLOAT), schema.ReducerOptionsT())
    kernel = writer.constant(np.array([[4.0, 1.0, -1.0]], np.float32))
    bias = writer.constant(np.array([-2.0], np.float32))
    logit = writer.operate(
        "FULLY_CONNECTED",
        [step(writer, mean), kernel, bias],
        writer.tensor("logit", [1, 1], _FLOAT),
        schema.FullyConnectedOptionsT(),
    )
    writer.subgraph.inputs = [pixels]
    writer.subgraph.outputs = [writer.operate("LOGISTIC", [logit], writer.tensor("score", [1, 1], _FLOAT))]
    return litert_edit.pack(model)


def make(folder: Path, number: int, step: Step) -> Made:
    """Write version *number* below *folder*, by the importer."""
    pictures = folder / "dark"
    pictures.mkdir(exist_ok=True)
    for level in _DARK:
        Image.new("RGB", (SIDE, SIDE), (level, level, level)).save(pictures / f"{level}.png")
    source = folder / f"source-{number}.tflite"
    source.write_bytes(network(step))
    request = Request(
        source=str(source),
        task="binary",
        labels=("No", "Yes"),
        name=MODEL,
        version=number,
        title="Trial",
        intended_use="Tests.",
        scaling="unit",
        golden=str(pictures),
    )
    return Made(number, importer.run(request, folder / "versions", lambda _: None).digest)


def bright(folder: Path) -> Path:
    """Write a bright picture."""
    path = folder / "bright.png"
    Image.new("RGB", (SIDE, SIDE), (_BRIGHT, _BRIGHT, _BRIGHT)).save(path)
    return path


def put(cluster: Cluster, namespace: str, image: str, folder: Path) -> None:
    """Copy the versions below *folder* into the claim, through a pod of *image* (one of the product's)."""
    where = f"--namespace={namespace}"
    mounted = pod("bringer", image, ["python", "-c", "import time; time.sleep(600)"])
    mounted["spec"]["containers"][0]["volumeMounts"] = [{"name": "models", "mountPath": "/models"}]
    mounted["spec"]["volumes"] = [{"name": "models", "persistentVolumeClaim": {"claimName": CLAIM}}]
    # The claim's files belong to the group of the product's pods.
    mounted["spec"]["securityContext"] |= {"runAsUser": USER, "fsGroup": USER}
    cluster.apply(json.dumps(mounted), where)
    cluster.kubectl("wait", "pod", "bringer", where, "--for=condition=Ready", "--timeout=120s")
    unpack = (
        "import base64, io, sys, tarfile; "
        "tarfile.open(fileobj=io.BytesIO(base64.b64decode(sys.stdin.read()))).extractall('/models')"
    )
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        archive.add(folder / "versions" / MODEL, arcname=MODEL)
    text = base64.b64encode(packed.getvalue()).decode()
    cluster.kubectl("exec", "--stdin", "bringer", where, "--", "python", "-c", unpack, stdin=text)
    cluster.kubectl("delete", "pod", "bringer", where, "--now")


def served_model(versions: list[Made], **spec: Any) -> Manifest:
    """Return the ServedModel `trial`, with the first of *versions* as the stable one."""
    return {
        "apiVersion": "serving.healthguard.io/v1alpha1",
        "kind": "ServedModel",
        "metadata": {"name": MODEL},
        "spec": {
            "runtime": QUIRKY,
            "versions": [made.entry for made in versions],
            "traffic": {"stable": versions[0].number},
            "resources": {"requests": {"cpu": "50m", "memory": "128Mi"}, "limits": {"memory": "512Mi"}},
        }
        | spec,
    }
