"""The images do their work as a cluster runs them: not root, read-only root file system."""

import asyncio
import base64
import json
import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest

from healthguard.local.postgres import SOCKET_NAME
from k8s.images import build
from serving.tfs.client import CallFailed, Client
from tests import committed
from tests import postgres as test_postgres
from tests.cluster.runs import wait_until
from tests.cluster.tools import Unavailable
from tests.images import base
from tests.images.built import Built, folder
from tests.images.conftest import Figures
from tests.images.container import Container
from tests.postgres import Postgres

pytestmark = [pytest.mark.xdist_group("images"), pytest.mark.timeout(3600)]

Containers = Callable[[str], Container]
ROOT = Path(__file__).parents[2]
START_TIMEOUT_S = 60.0
SERVED = {committed.version("cancer"): "AVAILABLE"}
SOCKET_FOLDER = "/tmp/postgresql"
# The module that imports everything its service needs, and one of another service that must be missing.
IMPORTS = {
    "gateway": ("gateway.app", "records"),
    "auth": ("auth.app", "gateway"),
    "records": ("records.app", "auth"),
    "operator": ("serving.operator.handlers", "serving.modelserver"),
    "modelserver": ("serving.modelserver.server", "serving.operator"),
}
HTTP_SERVICES = ("gateway", "auth", "records")

programs = pytest.mark.parametrize("service", [service for service in build.buildable() if service != "models"])


@pytest.fixture(scope="module")
def database() -> Iterator[Postgres]:
    """Run a PostgreSQL whose socket any user may open; the folder it lies in stays closed."""
    with test_postgres.running() as server:
        (server.cluster.socket_folder() / SOCKET_NAME).chmod(0o777)
        yield server


@programs
def test_image_imports_its_service_and_cannot_import_another(container: Containers, service: str) -> None:
    """What was left out of the image is missed by nobody who may be there."""
    own, other = IMPORTS[service]
    assert container(service).run("python", "-c", f"import {own}").returncode == 0
    forbidden = container(service).run("python", "-c", f"import {other}")
    assert "ModuleNotFoundError" in forbidden.stderr


@pytest.mark.parametrize("service", HTTP_SERVICES)
def test_image_shows_where_a_command_failed(container: Containers, service: str) -> None:
    """A traceback is drawn with Python's grammar, the one that the image keeps."""
    code = "from rich import traceback; traceback.install(); import pygments.lexers.python; 1 / 0"
    told = container(service).run("python", "-c", code).stderr
    assert "ZeroDivisionError" in told
    assert "ModuleNotFoundError" not in told


@programs
def test_image_starts_its_service_by_default(built: Built, service: str) -> None:
    """The entry point is the module that the service is started by everywhere."""
    module = service if service in HTTP_SERVICES else f"serving.{service}"
    assert built.archives[service].config["config"]["Entrypoint"] == ["python", "-m", module]


@pytest.mark.parametrize("service", HTTP_SERVICES)
def test_image_process_can_write_nowhere_but_tmp(container: Containers, service: str) -> None:
    """The root file system is read-only and not the user's; /tmp is what the pod mounts there."""
    code = "import os; print(os.getuid()); open('/tmp/x', 'w'); open('/opt/healthguard/app/x', 'w')"
    run = container(service).run("python", "-c", code)
    assert run.stdout == "10001\n"
    assert "Read-only file system" in run.stderr


@pytest.mark.parametrize(
    ("service", "setting"), [("gateway", "records_url"), ("auth", "dsn"), ("records", "gateway_secret")]
)
def test_image_without_settings_names_what_is_missing(container: Containers, service: str, setting: str) -> None:
    """A pod that was given nothing ends at once, and its log says which setting a person must decide."""
    run = container(service).run("python", "-m", service)
    assert run.returncode != 0
    assert setting in (run.stdout + run.stderr).lower()


@pytest.mark.parametrize("service", ["auth", "records"])
def test_image_migrates_its_database_and_becomes_ready(
    container: Containers, database: Postgres, figures: Figures, service: str, tmp_path: Path
) -> None:
    """The same image is the migration job and the service; it stops on SIGTERM with success."""
    image, environment = _with_database(container(service), service, database)
    migration = image.run("healthguard", service, "migrate", environment=environment)
    assert migration.returncode == 0, migration.stderr
    log = tmp_path / "log"
    started = time.monotonic()
    with image.running("python", "-m", service, environment=environment, log=log) as process:
        _until_ready(f"http://127.0.0.1:{environment[f'{service.upper()}_PORT']}/readyz", process, log)
        figures[service]["start_to_ready_s"] = round(time.monotonic() - started, 2)
    assert process.returncode in {0, -15}, log.read_text()


def test_gateway_image_becomes_ready(container: Containers, figures: Figures, tmp_path: Path) -> None:
    """It starts while nothing that it needs is there yet: one that waited for the others would wait for itself."""
    port = str(_free_port())
    served = tmp_path / "served"
    served.mkdir()
    (served / "models.json").write_text(json.dumps({"models": []}))
    environment = {
        "GATEWAY_PORT": port,
        "GATEWAY_AUTH_URL": "http://127.0.0.1:1",
        "GATEWAY_RECORDS_URL": "http://127.0.0.1:1",
        "GATEWAY_MODELS_FILE": "/tmp/served/models.json",
        "GATEWAY_RECORDS_SECRET": secrets.token_hex(32),
        "GATEWAY_IMAGE_HMAC_KEY": _key(),
    }
    image = replace(container("gateway"), mounts={"/tmp/served": served})
    log = tmp_path / "log"
    started = time.monotonic()
    with image.running("python", "-m", "gateway", environment=environment, log=log) as process:
        _until_ready(f"http://127.0.0.1:{port}/readyz", process, log)
        figures["gateway"]["start_to_ready_s"] = round(time.monotonic() - started, 2)


async def test_modelserver_image_serves_the_models_image(
    container: Containers, figures: Figures, tmp_path: Path
) -> None:
    """The two images together are a model server with a model: its newest version is AVAILABLE."""
    models = tmp_path / "models"
    models.mkdir()
    models.chmod(0o777)
    filled = replace(container("models"), mounts={"/tmp/models": models})
    assert filled.run("cp", "--recursive", "/models/.", "/tmp/models").returncode == 0
    port = _free_port()
    arguments = [f"--port={port}", "--model_name=cancer", "--model_base_path=/tmp/models/cancer"]
    image = replace(container("modelserver"), mounts={"/tmp/models": models})
    log = tmp_path / "log"
    started = time.monotonic()
    with image.running("python", "-m", "serving.modelserver", *arguments, environment={}, log=log) as process:
        states = await _until_served(f"127.0.0.1:{port}", process, log)
        figures["modelserver"]["start_to_model_available_s"] = round(time.monotonic() - started, 2)
    assert states == SERVED


_RUN_AND_WAIT = """
import sys, time
from pathlib import Path
from tests.images.container import Container

image = Container("buildah", "", Path(sys.argv[1]), "10001:10001", {"PATH": "/usr/bin:/bin"})
with image.running("sleep", "600", environment={}, log=Path(sys.argv[2])) as process:
    print(process.pid, flush=True)
    time.sleep(600)
"""


def test_killed_test_run_takes_its_containers_with_it(tmp_path: Path) -> None:
    """A test run that ends by kill -9 stops nothing by itself, and still no process of its images stays."""
    try:
        rootfs = base.rootfs()
    except Unavailable as reason:
        pytest.skip(str(reason))
    if os.geteuid() != 0:
        pytest.skip("No container was run: that needs root.")
    subprocess.run(["tar", "--extract", f"--file={rootfs}", f"--directory={folder('killed')}"], check=True)
    command = [sys.executable, "-c", _RUN_AND_WAIT, str(folder("killed")), str(tmp_path / "log")]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        inside = Path("/proc", run.stdout.readline().strip())
        wait_until(lambda: (inside / "cmdline").read_bytes().startswith(b"sleep"), "the program to run", 60)
        run.kill()
    wait_until(lambda: not inside.exists(), "the program to be gone", 60)


async def _until_served(address: str, process: "subprocess.Popen[bytes]", log: Path) -> dict[int, str]:
    deadline = time.monotonic() + START_TIMEOUT_S
    async with Client(address) as client:
        while True:
            try:
                states = {version.version: version.state for version in await client.status("cancer", timeout_s=2)}
                if states == SERVED:
                    return states
            except CallFailed:
                pass
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            await asyncio.sleep(0.05)


def _with_database(image: Container, service: str, database: Postgres) -> tuple[Container, dict[str, str]]:
    """Return *image* with the database's socket in it, and its settings."""
    prefix = service.upper()
    # The folder of the socket is closed to others, so the socket itself is what the container gets.
    here = database.cluster.socket_folder()
    dsn = database.create_database(service).replace(quote(str(here), safe=""), quote(SOCKET_FOLDER, safe=""))
    common = {f"{prefix}_DSN": dsn, f"{prefix}_PORT": str(_free_port())}
    own = {
        "auth": {"AUTH_KEY_ENCRYPTION_KEY": _key()},
        "records": {
            "RECORDS_GATEWAY_SECRET": secrets.token_hex(32),
            "RECORDS_PSEUDONYM_KEY": _key(),
            "RECORDS_JWKS_URL": "http://127.0.0.1:1/.well-known/jwks.json",
        },
    }
    return replace(image, mounts={f"{SOCKET_FOLDER}/{SOCKET_NAME}": here / SOCKET_NAME}), common | own[service]


def _until_ready(url: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while True:
        try:
            if httpx.get(url, timeout=2).status_code == 200:
                return
        except httpx.TransportError:
            pass
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.02)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _key() -> str:
    return base64.b64encode(secrets.token_bytes(32)).decode()
