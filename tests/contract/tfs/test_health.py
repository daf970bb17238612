"""grpc.health.v1: ours tells the truth about each model; with --tfs_quirks it says yes once and for ever."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from serving.tfs.health_pb2 import HealthCheckRequest, HealthCheckResponse
from serving.tfs.protos import ReloadConfigRequest
from tests.contract.tfs.harness import QUICK, Server, add_version, folder, ours, running, wait_until

FLAGS = ("--model_name=arithmetic", "--enable_grpc_healthcheck_service=true")


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    """Make a model with one version."""
    with folder() as path:
        add_version(path / "arithmetic", 1)
        yield path


@pytest.fixture(scope="module")
def server(home: Path) -> Iterator[Server]:
    """Run a server with that model."""
    with running(f"--model_base_path={home / 'arithmetic'}", *FLAGS, *QUICK) as started:
        yield started


def check(server: Server, service: str) -> str:
    """Return the status of a service name, or the code of the refusal."""
    call = server.channel.unary_unary(
        "/grpc.health.v1.Health/Check", HealthCheckRequest.SerializeToString, HealthCheckResponse.FromString
    )
    try:
        status = call(HealthCheckRequest(service=service), timeout=20).status
    except grpc.RpcError as error:
        name: str = error.code().name
        return name
    return HealthCheckResponse.ServingStatus.Name(status)


def watch(server: Server, service: str) -> Any:
    """Return the stream of a name's states."""
    call = server.channel.unary_stream(
        "/grpc.health.v1.Health/Watch", HealthCheckRequest.SerializeToString, HealthCheckResponse.FromString
    )
    return call(HealthCheckRequest(service=service), timeout=60)


@pytest.mark.parametrize("service", ["", "ModelService", "PredictionService"])
def test_health_of_the_server_is_serving(server: Server, service: str) -> None:
    """Once the port is open, the names of the original say SERVING."""
    assert check(server, service) == "SERVING"


@ours("the original knows no models here")
def test_health_of_models_follows_them(server: Server, home: Path) -> None:
    """A model and a version serve while they are available; a watcher hears each change; other names are unknown."""
    assert [check(server, name) for name in ("arithmetic", "arithmetic/1", "arithmetic/2", "other")] == [
        "SERVING",
        "SERVING",
        "NOT_FOUND",
        "NOT_FOUND",
    ]
    heard = watch(server, "arithmetic")
    unknown = watch(server, "other")
    assert next(heard).status == HealthCheckResponse.SERVING
    assert next(unknown).status == HealthCheckResponse.SERVICE_UNKNOWN
    add_version(home / "arithmetic", 2)
    wait_until(lambda: check(server, "arithmetic/2") == "SERVING")
    wait_until(lambda: check(server, "arithmetic/1") == "NOT_SERVING")
    nothing = ReloadConfigRequest()
    nothing.config.model_config_list.SetInParent()
    server.models.HandleReloadConfigRequest(nothing, timeout=20)
    assert next(heard).status == HealthCheckResponse.NOT_SERVING
    assert check(server, "") == "SERVING"
    heard.cancel()
    unknown.cancel()


@ours("the quirks are ours")
def test_health_with_quirks_never_changes(home: Path) -> None:
    """With --tfs_quirks the server's names say SERVING also without a model, and models are unknown."""
    flags = (f"--model_base_path={home / 'arithmetic'}", "--tfs_quirks", *FLAGS, *QUICK)
    with running(*flags) as server:
        nothing = ReloadConfigRequest()
        nothing.config.model_config_list.SetInParent()
        server.models.HandleReloadConfigRequest(nothing, timeout=20)
        assert [check(server, name) for name in ("", "PredictionService", "arithmetic")] == [
            "SERVING",
            "SERVING",
            "NOT_FOUND",
        ]


def test_health_service_can_be_left_out(home: Path) -> None:
    """Without the service a probe gets UNIMPLEMENTED, as from the original by default."""
    flags = (f"--model_base_path={home / 'arithmetic'}", "--model_name=arithmetic", *QUICK)
    with running(*flags, "--enable_grpc_healthcheck_service=false") as server:
        assert check(server, "") == "UNIMPLEMENTED"
