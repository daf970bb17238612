"""Starting: what cannot be honoured ends the process at once, with a reason and a status other than 0."""

import socket
from pathlib import Path

import grpc
import pytest

from tests.contract.tfs.harness import QUICK, TIMEOUT_S, add_version, floats, folder, ours, request, running, start

pytestmark = ours("starts our own process")


def ends(*flags: str, log: Path) -> tuple[int, str]:
    """Start a server that is to end by itself; return its status and output."""
    process = start(*flags, log=log)
    try:
        status = process.wait(TIMEOUT_S)
    finally:
        process.kill()
        process.wait()
    return status, log.read_text()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--model_base_path=/m", "--enable_profiler=true"], "does not honour --enable_profiler"),
        (["--model_base_path=/m", "--nonsense=1"], "unknown argument --nonsense"),
        (["--model_config_file=/absent"], "cannot read /absent"),
        (["--model_base_path=/m", "--batching_parameters_file=/b"], "without --enable_batching"),
    ],
    ids=[
        "a flag that is not honoured",
        "an unknown flag",
        "no configuration file",
        "batching parameters without batching",
    ],
)
def test_start_refuses_flags(tmp_path: Path, flags: list[str], words: str) -> None:
    """The text names what is wrong, and the status is 2."""
    status, output = ends(*flags, log=tmp_path / "log")
    assert status == 2
    assert words in output


def test_start_refuses_a_broken_configuration(tmp_path: Path) -> None:
    """An unparsable file is reported in TensorFlow Serving's words."""
    (tmp_path / "config").write_text("improper config")
    status, output = ends(f"--model_config_file={tmp_path / 'config'}", log=tmp_path / "log")
    assert status == 2
    assert "Error parsing text-format tensorflow.serving.ModelServerConfig" in output


def test_start_fails_when_no_version_loads(tmp_path: Path) -> None:
    """Only bad versions: the process ends with 1 and says which."""
    with folder() as home:
        add_version(home / "bad", 1, b"nothing")
        status, output = ends(f"--model_base_path={home / 'bad'}", *QUICK, log=tmp_path / "log")
    assert status == 1
    assert "default version 1" in output


def test_start_fails_when_a_label_has_no_version(tmp_path: Path) -> None:
    """A label in the first configuration ends the start, since no version is available yet."""
    with folder() as home:
        add_version(home / "arithmetic", 1)
        (home / "config").write_text(
            f'model_config_list {{ config {{ name: "arithmetic" base_path: "{home}/arithmetic" '
            'model_platform: "tensorflow" version_labels { key: "stable" value: 1 } } }'
        )
        status, output = ends(f"--model_config_file={home / 'config'}", *QUICK, log=tmp_path / "log")
    assert status == 1
    assert (
        "Failed to start server. Error: FAILED_PRECONDITION: Request to assign label to version 1 of model arithmetic, "
        "which is not currently available for inference" in output
    )


def test_start_without_models_waits_to_be_told() -> None:
    """An empty configuration serves nothing until a reload says what."""
    with folder() as home:
        (home / "config").write_text("")
        with (
            running(f"--model_config_file={home / 'config'}", *QUICK) as server,
            pytest.raises(grpc.RpcError) as caught,
        ):
            server.predict(request({"x": floats((1, 2))}))
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


def test_start_fails_when_the_port_is_taken(tmp_path: Path) -> None:
    """A taken port is named; nobody shares a port in silence."""
    with folder() as home, socket.socket() as taken:
        add_version(home / "arithmetic", 1)
        # Even one who is willing to share: half of the requests would go astray.
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        flags = (f"--model_base_path={home / 'arithmetic'}", "--listen_address=127.0.0.1", f"--port={port}")
        status, output = ends(*flags, *QUICK, log=tmp_path / "log")
    assert status == 1
    assert f"cannot listen on 127.0.0.1:{port}" in output


def test_start_prints_its_flags(tmp_path: Path) -> None:
    """--help answers and ends well."""
    status, output = ends("--help", log=tmp_path / "log")
    assert status == 0
    assert "--model_config_file=" in output
