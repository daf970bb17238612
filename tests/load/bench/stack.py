"""The product's processes, each started as it is in production, for one measurement."""

import base64
import http.client
import json
import os
import re
import secrets
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from healthguard.local.ports import free_ports
from healthguard.tokens import Role
from tests import postgres
from tests.issuer import Issuer
from tests.load.bench.http_load import TOKEN
from tests.load.bench.modelserver import serving
from tests.load.bench.processes import ROOT, START_S, Failed

TOKEN_LIFE_S = 3600
_PHASE = re.compile(r'^healthguard_prediction_phase_seconds_(sum|count){.*phase="(\w+)".*} (\S+)$', re.MULTILINE)


@dataclass(frozen=True)
class Stack:
    """The running product."""

    port: int
    """The gateway's."""
    pids: Mapping[str, int]
    """By the name of the process; PostgreSQL's is the parent of its others."""

    def phases(self) -> dict[str, tuple[float, float]]:
        """Return seconds and number of each phase so far, from the gateway's metrics."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=START_S)
        connection.request("GET", "/metrics")
        found: dict[str, dict[str, float]] = {}
        for kind, phase, value in _PHASE.findall(connection.getresponse().read().decode()):
            found.setdefault(phase, {})[kind] = float(value)
        connection.close()
        return {phase: (each["sum"], each["count"]) for phase, each in found.items()}


@dataclass(frozen=True)
class Base:
    """What all measurements share: a database with its schema, and who signs tokens."""

    dsn: str
    postgres_pid: int
    jwks_url: str
    token: str

    def generator_env(self) -> dict[str, str]:
        """Return what the generator is told by its environment: tokens do not belong on a command line."""
        return {TOKEN: self.token}


@contextmanager
def base() -> Iterator[Base]:
    """
    Run what all measurements share until the block ends; what is stored is forced to disk, as in production.

    Raises:
        Failed: the database could not be given its schema.
    """
    issuer = Issuer()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hg-")))
        folder.chmod(0o711)  # root's run lends PostgreSQL an account without rights, which must get in
        server = stack.enter_context(postgres.start(folder, databases=("records",)))
        dsn = server.dsn("records")
        command = [sys.executable, "-m", "healthguard", "records", "migrate"]
        if subprocess.run(
            command, cwd=ROOT, env={**os.environ, "RECORDS_DSN": dsn}, capture_output=True, check=False
        ).returncode:
            raise Failed("the database could not be given its schema")
        assert server.process is not None
        yield Base(
            dsn,
            server.process.pid,
            stack.enter_context(_publishing(issuer)),
            issuer.token(Role.DOCTOR, exp=int(time.time()) + TOKEN_LIFE_S),
        )


@contextmanager
def _publishing(issuer: Issuer) -> Iterator[str]:
    """Publish the keys of *issuer* as auth does, and return where."""
    document = json.dumps(issuer.jwks()).encode()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(document)))
            self.end_headers()
            self.wfile.write(document)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/.well-known/jwks.json"
        server.shutdown()


@contextmanager
def running(shared: Base, model: str, version: Path) -> Iterator[Stack]:
    """
    Run model server, records and gateway, with *version* served as *model*, until the block ends.

    Caches and rate limits are off: every request pays for all of its work.

    Raises:
        Failed: one of them did not start.
    """
    secret, ports = secrets.token_urlsafe(32), free_ports()
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hg-")))
        server = stack.enter_context(serving("litert", {model: version.parent}, port=ports.modelserver))
        declared = {"name": model, "stable": int(version.name), "endpoints": [server.address]}
        (home / "models.json").write_text(json.dumps({"models": [declared]}))
        records = {
            "RECORDS_DSN": shared.dsn,
            "RECORDS_PORT": str(ports.records),
            "RECORDS_JWKS_URL": shared.jwks_url,
            "RECORDS_GATEWAY_SECRET": secret,
            "RECORDS_PSEUDONYM_KEY": _key(),
        }
        gateway = {
            "GATEWAY_PORT": str(ports.gateway),
            "GATEWAY_AUTH_URL": shared.jwks_url.rpartition("/.well-known")[0],
            "GATEWAY_RECORDS_URL": f"http://127.0.0.1:{ports.records}",
            "GATEWAY_MODELS_FILE": str(home / "models.json"),
            "GATEWAY_RECORDS_SECRET": secret,
            "GATEWAY_IMAGE_HMAC_KEY": _key(),
            "GATEWAY_REQUESTS_PER_MINUTE": "0",
            "GATEWAY_ANSWERS_KEPT_MAX": "0",
        }
        pids = {"modelserver": server.pid, "postgres": shared.postgres_pid}
        for name, env in (("records", records), ("gateway", gateway)):
            pids[name] = stack.enter_context(_service(name, env, home))
        for name, at in (("records", ports.records), ("gateway", ports.gateway)):
            _wait_ready(name, at, home)
        yield Stack(ports.gateway, pids)


def _key() -> str:
    return base64.b64encode(secrets.token_bytes(32)).decode()


@contextmanager
def _service(name: str, env: Mapping[str, str], home: Path) -> Iterator[int]:
    with (home / f"{name}.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", name], cwd=ROOT, env={**os.environ, **env}, stdout=log, stderr=log
        )
    try:
        yield process.pid
    finally:
        process.kill()
        process.wait()


def _wait_ready(name: str, port: int, home: Path) -> None:
    """
    Wait until a service and all that it needs are well.

    Raises:
        Failed: it took too long.
    """
    started = time.monotonic()
    while not _ready(port):
        if time.monotonic() - started > START_S:
            raise Failed(f"{name} did not start: {(home / f'{name}.log').read_text()[-1000:]}")
        time.sleep(0.05)


def _ready(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=START_S)
    try:
        connection.request("GET", "/health/ready")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()
