"""
Compile our small protos, and write type stubs for the official messages (a developer's tool: `make protos`).

The official wheel has neither type stubs nor .proto files, but each of its modules carries its descriptor, and protoc
writes stubs from that.
"""

import tempfile
from pathlib import Path

from google.protobuf import descriptor_pb2, descriptor_pool
from grpc_tools import protoc

from serving.tfs.tensorflow_protos import SLIM

ROOT = SLIM.parents[2]


def main() -> None:
    """Write every generated file below serving/tfs; run from anywhere."""
    slim = sorted(str(path.relative_to(SLIM)) for path in SLIM.rglob("*.proto"))
    _protoc([f"-I{SLIM}", f"--python_out={SLIM}", f"--pyi_out={SLIM}", *slim])
    own = [f"serving/tfs/{name}.proto" for name in ("batching_parameters", "ssl_config", "health", "monitoring_config")]
    _protoc([f"-I{ROOT}", f"-I{_well_known()}", f"--python_out={ROOT}", f"--pyi_out={ROOT}", *own])
    with tempfile.NamedTemporaryFile(suffix=".binpb") as bundle:
        files = _official_files()
        bundle.write(descriptor_pb2.FileDescriptorSet(file=files).SerializeToString())
        bundle.flush()
        official = [file.name for file in files if file.name.startswith("tensorflow_serving/")]
        _protoc([f"--descriptor_set_in={bundle.name}", f"--pyi_out={SLIM}", *official])


def _official_files() -> list[descriptor_pb2.FileDescriptorProto]:
    """Return the descriptors of all files that our imports pull in, each after those that it imports."""
    # Only now: it needs the slim protos that were compiled a moment ago.
    from serving.tfs.protos import (  # noqa: PLC0415
        ModelServerConfig,
        PredictionLog,
        PredictResponse,
        ReloadConfigRequest,
    )

    pool = descriptor_pool.Default()
    messages = (PredictionLog, PredictResponse, ModelServerConfig, ReloadConfigRequest)
    wanted = [message.DESCRIPTOR.file.name for message in messages]
    wanted += ["tensorflow_serving/apis/get_model_status.proto", "tensorflow_serving/apis/get_model_metadata.proto"]
    ordered: dict[str, descriptor_pb2.FileDescriptorProto] = {}

    def visit(name: str) -> None:
        if name in ordered:
            return
        proto = descriptor_pb2.FileDescriptorProto()
        pool.FindFileByName(name).CopyToProto(proto)
        for dependency in proto.dependency:
            visit(dependency)
        ordered[name] = proto

    for name in wanted:
        visit(name)
    return list(ordered.values())


def _well_known() -> Path:
    """Return the folder of google/protobuf/*.proto that grpcio-tools brings."""
    return Path(protoc.__file__).with_name("_proto")


def _protoc(arguments: list[str]) -> None:
    """
    Run the compiler.

    Raises:
        SystemExit: the compiler refused.
    """
    if protoc.main(["protoc", *arguments]) != 0:
        raise SystemExit(f"protoc {' '.join(arguments)} failed")


if __name__ == "__main__":
    main()
