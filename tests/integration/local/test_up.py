"""`healthguard up` as a person meets it: the first start, a second one, taken ports, the way down."""

import json
import os
import re
import shlex
import shutil
import signal
import socket
import stat
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from healthguard.client import Client
from healthguard.local.process import alive
from models import artifact
from tests import committed
from tests.integration.local.product import MODELS, Up, command, start

pytestmark = pytest.mark.timeout(240)

DEADLINE_S = 20.0


def _all_end(pids: list[int]) -> bool:
    """Wait until none of the processes lives; tell whether that came true in time."""
    deadline = time.monotonic() + DEADLINE_S
    while any(map(alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not any(map(alive, pids))


def test_up_prints_a_line_that_works_as_it_is(product: Up) -> None:
    """The line to paste, run in a second terminal, stores a prediction; no password is in it."""
    words = shlex.split(product.facts["try"])
    assert product.facts["password"] not in product.facts["try"]
    done = product.run(*words[words.index("predict") :], "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    with Client(product.url, _token(product)) as client:
        stored = client.prediction(found["id"])
    assert (stored.model, stored.version, stored.outcome) == (found["model"], found["version"], found["outcome"])
    assert stored.weights_digest is not None
    assert stored.image_hmac is not None
    assert set(stored.timings or {}) == {"read_ms", "decode_ms", "inference_ms"}


def _token(product: Up) -> str:
    with Client(product.url) as client:
        return client.login(product.facts["email"], product.facts["password"]).access_token


@pytest.mark.parametrize("model", ["cancer", "anemia"])
def test_predict_gives_each_golden_case_its_class(product: Up, model: str) -> None:
    """Every class of every model comes out right, decode and resize included."""
    cases = artifact.golden(committed.folder(model)).cases
    files = [str(case.path) for case in cases]
    done = product.run("predict", *files, "--model", model, "--url", product.url, "--json")
    assert done.returncode == 0, done.stderr
    outcomes = [json.loads(line)["outcome"] for line in done.stdout.splitlines()]
    assert outcomes == [case.label for case in cases]


def test_up_keeps_secrets_from_others(product: Up) -> None:
    """Nobody else can read what opens the data, nor the log-ins; the password is in no file."""
    folder = product.data.path
    private = [
        folder,
        product.data.secrets,
        product.data.demo,
        product.home / "XDG_CONFIG_HOME/healthguard/logins.json",
    ]
    assert [stat.S_IMODE(path.stat().st_mode) & 0o077 for path in private] == [0, 0, 0, 0]
    password = product.facts["password"].encode()
    texts = [path for path in product.home.rglob("*") if path.is_file() and product.data.postgres not in path.parents]
    assert [path for path in texts if password in path.read_bytes()] == []


def test_up_says_that_the_folder_is_in_use(product: Up) -> None:
    """A second start on the same folder says so, and does nothing."""
    done = command("up", "--free-ports", "--data-dir", str(product.data.path), home=product.home)
    assert done.returncode == 2
    assert "already runs on" in done.stderr
    assert product.run("status", "--data-dir", str(product.data.path)).returncode == 0


def test_up_names_the_port_that_is_taken(tmp_path: Path) -> None:
    """A taken port is named with the option that changes it, before anything starts."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = command("up", f"--records-port={port}", "--data-dir", str(tmp_path / "data"), home=tmp_path)
    assert done.returncode == 2
    assert re.search(rf"Port {port} \(records\) .* --records-port", done.stderr)
    assert not (tmp_path / "data" / "postgres").exists()


def test_up_refuses_a_model_that_was_changed(tmp_path: Path) -> None:
    """One changed byte of a model, and nothing starts."""
    models = _copy_of_models(tmp_path / "models")
    weights = models / "cancer" / str(committed.version("cancer")) / "model.tflite"
    weights.write_bytes(weights.read_bytes()[:-1] + b"!")
    done = command("up", "--free-ports", f"--models={models}", "--data-dir", str(tmp_path / "data"), home=tmp_path)
    assert done.returncode == 2
    assert "cancer" in done.stderr
    assert not (tmp_path / "data" / "postgres").exists()


def test_up_in_the_background_starts_twice_and_stops(tmp_path: Path) -> None:
    """Detached, it returns when all is ready; `down` leaves no process; the second start has the same data."""
    data = ["--data-dir", str(tmp_path / "data")]
    first = command("up", "--detach", "--free-ports", "--json", *data, home=tmp_path)
    assert first.returncode == 0, first.stderr
    facts = json.loads(first.stdout)
    state = json.loads(command("status", "--json", *data, home=tmp_path).stdout)
    pids = [service["pid"] for service in state["services"].values() if service["pid"]] + [state["pid"]]
    log = tmp_path / "data" / "logs" / "supervisor.log"
    assert facts["password"] not in log.read_text()
    assert command("down", *data, home=tmp_path).returncode == 0
    assert _all_end(pids)
    assert command("status", *data, home=tmp_path).returncode == 3

    second = command("up", "--detach", "--free-ports", "--json", *data, home=tmp_path)
    again = json.loads(second.stdout)
    assert "password" not in again
    with Client(again["url"]) as client:
        assert client.login(facts["email"], facts["password"]).access_token
    assert command("down", *data, home=tmp_path).returncode == 0


def test_up_killed_leaves_nothing_and_starts_again(tmp_path: Path) -> None:
    """After kill -9 of the supervisor no process lives on, and the next start clears what it left."""
    options = ["--free-ports", "--data-dir", str(tmp_path / "data")]
    with start(tmp_path, *options) as killed:
        pids = killed.pids()
        killed.process.kill()
        killed.process.wait()
    assert _all_end(pids)
    # A stale file of PostgreSQL whose number is now another program's.
    (tmp_path / "data" / "postgres" / "postmaster.pid").write_text(f"{os.getpid()}\n")

    with start(tmp_path, *options) as again:
        pids = again.pids()
        again.process.send_signal(signal.SIGTERM)
        assert again.process.wait(60) == 0
    assert _all_end(pids)
    assert list((tmp_path / "data" / "postgres").glob(".s.*")) == []


def test_up_does_not_serve_a_model_that_was_changed_while_it_ran(tmp_path: Path) -> None:
    """After the model server's death the changed model is not loaded; `status` says why, and it heals by itself."""
    models = _copy_of_models(tmp_path / "models")
    data = ["--data-dir", str(tmp_path / "data")]
    with start(tmp_path, "--free-ports", f"--models={models}", *data) as product:
        weights = models / "cancer" / str(committed.version("cancer")) / "model.tflite"
        original = weights.read_bytes()
        weights.write_bytes(original[:-1] + bytes([original[-1] ^ 1]))
        os.kill(_service(product, "modelserver")["pid"], signal.SIGKILL)
        _until(lambda: _service(product, "modelserver")["reason"] is not None)
        found = product.run("status", *data)
        assert found.returncode == 1
        assert (
            f"cancer: version {committed.version('cancer')} does not have the digest that its manifest names"
            in found.stdout
        )
        refused = _predict(product)
        assert refused.returncode == 1
        assert '"outcome"' not in refused.stdout

        weights.write_bytes(original)
        _until(lambda: _service(product, "modelserver")["phase"] == "ready")
        _until(lambda: _predict(product).returncode == 0)
        assert product.run("status", *data).returncode == 0


def _service(product: Up, name: str) -> dict[str, Any]:
    state = product.data.read_state()
    assert state is not None
    found: dict[str, Any] = state["services"][name]
    return found


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _predict(product: Up) -> "subprocess.CompletedProcess[str]":
    case = artifact.golden(committed.folder("cancer")).cases[0].path
    return product.run("predict", str(case), "--model", "cancer", "--url", product.url, "--json")


def _copy_of_models(target: Path) -> Path:
    """Copy the manifests and the versions that they name."""
    for manifest in artifact.manifests(MODELS):
        source = committed.folder(manifest.parent.name)
        shutil.copytree(source, target / manifest.parent.name / source.name)
        shutil.copy(manifest, target / manifest.parent.name)
    return target
