"""Clients that predict through the product's door, all the time, and note who answered and what failed."""

import secrets
import ssl
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from tests.cluster.cluster import Cluster
from tests.cluster.product import door
from tests.cluster.runs import wait_until

_PAUSE_S = 0.02
_IDLE_S = 0.1


@dataclass
class Clients:
    """Who predicts; what they send may be changed at any time."""

    cluster: Cluster
    trusted: ssl.SSLContext
    token: dict[str, str]
    picture: bytes
    model: str
    busy: int
    """How many of them predict; the others wait until more are wanted."""
    pause_s: float = _PAUSE_S
    """How long each waits between two requests."""
    versions: Counter[int] = field(default_factory=Counter)
    """How many answers each version gave."""
    failed: list[str] = field(default_factory=list)
    stopped: threading.Event = field(default_factory=threading.Event)

    def run(self, number: int) -> None:
        """Be one client: one request after the other while more than *number* are wanted."""
        with door(self.cluster, self.trusted) as client:
            while not self.stopped.wait(self.pause_s if number < self.busy else _IDLE_S):
                if number < self.busy:
                    self._predict(client)

    def _predict(self, client: httpx.Client) -> None:
        files = {"file": ("image.png", self.picture, "image/png")}
        path = f"/api/v1/models/{self.model}/predictions"
        try:
            answer = client.post(path, headers=self.token, files=files)
        except httpx.HTTPError as error:
            self.failed.append(type(error).__name__)
            return
        if answer.status_code == httpx.codes.CREATED:
            self.versions[answer.json()["version"]] += 1
        else:
            self.failed.append(f"{answer.status_code}: {answer.text}")


@contextmanager
def predicting(
    cluster: Cluster, trusted: ssl.SSLContext, picture: Path, *, model: str = "cancer", count: int = 3, busy: int = 3
) -> Iterator[Clients]:
    """Yield *count* clients, of which *busy* are at work, logged in as a new person."""
    person = {"email": f"ada-{secrets.token_hex(4)}@example.org", "password": secrets.token_urlsafe(16)}
    with door(cluster, trusted) as client:
        wait_until(lambda: client.get("/health/ready").status_code == httpx.codes.OK, "everything to be ready", 180)
        assert client.post("/api/v1/auth/register", json=person).status_code == httpx.codes.CREATED
        form = {"username": person["email"], "password": person["password"]}
        token = client.post("/api/v1/auth/login", data=form).json()["access_token"]
    clients = Clients(cluster, trusted, {"Authorization": f"Bearer {token}"}, picture.read_bytes(), model, busy)
    threads = [threading.Thread(target=clients.run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield clients
    finally:
        clients.stopped.set()
        for thread in threads:
            thread.join()
