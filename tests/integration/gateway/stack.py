"""All services as processes of their own, on a real database and the committed models; the gateway in front."""

import base64
import json
import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests import committed

ROOT = Path(__file__).parents[3]
MODELS = ("cancer", "anemia")
START_TIMEOUT_S = 90.0
PASSWORD = "a long password of a test person"


@dataclass(frozen=True)
class Stack:
    """The addresses of a running stack, and the processes behind them."""

    gateway_url: str
    auth_url: str
    gateway: "subprocess.Popen[bytes]"
    grpc_address: str
    """Where the Open Inference Protocol is spoken over gRPC."""

    def client(self, token: str | None = None) -> httpx.Client:
        """Return a client of the gateway, with *token* where given."""
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        return httpx.Client(base_url=self.gateway_url, headers=headers, timeout=20)

    def register(self) -> dict[str, str]:
        """Register a new person and return their credentials."""
        credentials = {"email": f"{secrets.token_hex(8)}@example.org", "password": PASSWORD}
        with self.client() as client:
            response = client.post("/api/auth/register", json=credentials)
            assert response.status_code == 201, response.text
        return credentials

    def token(self) -> str:
        """Register a new patient, log them in and return the access token."""
        credentials = self.register()
        with self.client() as client:
            response = client.post("/api/auth/login", json=credentials)
            assert response.status_code == 200, response.text
            return str(response.json()["access_token"])


def free_port() -> int:
    """Return a port that was free a moment ago."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def base64_key() -> str:
    """Return 32 random bytes in base64."""
    return base64.b64encode(secrets.token_bytes(32)).decode()


def write_models_file(folder: Path, endpoint: str) -> Path:
    """Write the gateway's discovery file: every committed model at one endpoint."""
    models = [{"name": name, "stable": committed.version(name), "endpoints": [endpoint]} for name in MODELS]
    path = folder / "models.json"
    path.write_text(json.dumps({"models": models}))
    return path


def write_server_config(folder: Path) -> Path:
    """Write the model server's config file: every committed model."""
    entry = 'config {{ name: "{0}" base_path: "{1}" model_platform: "tensorflow" }}'
    entries = " ".join(entry.format(name, ROOT / "models" / name) for name in MODELS)
    path = folder / "models.config"
    path.write_text(f"model_config_list {{ {entries} }}")
    return path


@contextmanager
def process(
    module: str, folder: Path, env: Mapping[str, str] | None = None, args: Sequence[str] = ()
) -> Iterator["subprocess.Popen[bytes]"]:
    """Run `python -m module` for the block; its output goes to a file of *folder*."""
    with (folder / f"{module}.log").open("wb") as log:
        started = subprocess.Popen(
            [sys.executable, "-m", module, *args],
            cwd=ROOT,
            env={"PATH": os.environ["PATH"], **(env or {})},
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        yield started
    finally:
        started.terminate()
        try:
            started.wait(20)
        except subprocess.TimeoutExpired:
            started.kill()
            started.wait()


def until_ok(url: str, folder: Path) -> None:
    """Wait until *url* answers 200; fail with the logs if it does not in time."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while True:
        try:
            if httpx.get(url, timeout=2).status_code == 200:
                return
        except httpx.TransportError:
            pass
        if time.monotonic() > deadline:
            logs = "\n".join(f"== {path.name}\n{path.read_text()}" for path in sorted(folder.glob("*.log")))
            raise TimeoutError(f"{url} was not ready in time\n{logs}")
        time.sleep(0.05)


def until_listening(port: int, folder: Path) -> None:
    """Wait until something takes connections at *port*; fail with the logs if nothing does in time."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            if time.monotonic() > deadline:
                logs = "\n".join(f"== {path.name}\n{path.read_text()}" for path in sorted(folder.glob("*.log")))
                raise TimeoutError(f"nothing listened at {port} in time\n{logs}") from None
            time.sleep(0.05)
        else:
            return


@contextmanager
def running(folder: Path, auth_dsn: str, records_dsn: str, **gateway_env: str) -> Iterator[Stack]:
    """Run the whole stack for the block."""
    ports = {name: free_port() for name in ("auth", "records", "gateway", "grpc")}
    urls = {name: f"http://127.0.0.1:{port}" for name, port in ports.items()}
    model_socket = folder / "s"
    secret, jwks = secrets.token_hex(32), urls["auth"] + "/.well-known/jwks.json"
    auth = {
        "AUTH_PORT": str(ports["auth"]),
        "AUTH_DSN": auth_dsn,
        "AUTH_KEY_ENCRYPTION_KEY": base64_key(),
        "AUTH_PASSWORD_PROFILE": "owasp-minimum",
        # Every test person comes from the same address; what is tested here is not auth's patience.
        "AUTH_TRUSTED_HOPS": "1",
    }
    records = {
        "RECORDS_PORT": str(ports["records"]),
        "RECORDS_DSN": records_dsn,
        "RECORDS_JWKS_URL": jwks,
        "RECORDS_GATEWAY_SECRET": secret,
        "RECORDS_PSEUDONYM_KEY": base64_key(),
    }
    gateway = {
        "GATEWAY_PORT": str(ports["gateway"]),
        "GATEWAY_GRPC_PORT": str(ports["grpc"]),
        "GATEWAY_AUTH_URL": urls["auth"],
        "GATEWAY_RECORDS_URL": urls["records"],
        "GATEWAY_RECORDS_SECRET": secret,
        "GATEWAY_IMAGE_HMAC_KEY": base64_key(),
        "GATEWAY_MODELS_FILE": str(write_models_file(folder, f"unix:{model_socket}")),
        **gateway_env,
    }
    flags = ["--port=0", f"--grpc_socket_path={model_socket}", f"--model_config_file={write_server_config(folder)}"]
    with ExitStack() as processes:
        processes.enter_context(process("serving.modelserver", folder, args=flags))
        processes.enter_context(process("auth", folder, auth))
        processes.enter_context(process("records", folder, records))
        door = processes.enter_context(process("gateway", folder, gateway))
        until_ok(urls["gateway"] + "/health/ready", folder)
        yield Stack(urls["gateway"], urls["auth"], door, f"127.0.0.1:{ports['grpc']}")
