"""How every HTTP service runs: one process, uvloop, drained on SIGTERM."""

import asyncio
import signal
import socket
from functools import partial
from types import FrameType
from typing import Any

import uvicorn
import uvloop
from fastapi import FastAPI

from healthguard import edge, memory, tls
from healthguard.edge import Connection, Door
from healthguard.health import Health
from healthguard.metrics import HttpMetrics
from healthguard.settings import Settings

KEEP_ALIVE_S = 75
BACKLOG = 512
HANDSHAKE_S = 8.0
SWEEP_TICKS = 5
"""uvicorn ticks ten times a second."""


class DrainingServer(uvicorn.Server):
    """
    A server that leaves in order: `/readyz` turns first, then the listener closes, then what is in flight ends.

    uvicorn alone closes its listener at once; requests that a load balancer sends in the second before it has noticed
    would be refused.
    """

    def __init__(self, config: uvicorn.Config, health: Health, drain_s: float) -> None:
        super().__init__(config)
        self._health = health
        self._drain_s = drain_s

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and take what has been made until now for what stays."""
        await super().startup(sockets)
        memory.settle()

    async def on_tick(self, counter: int) -> bool:
        """Cut who is too slow: one look at all connections costs less than a timer for each request."""
        if counter % SWEEP_TICKS == 0:
            now = asyncio.get_running_loop().time()
            for connection in tuple(self.server_state.connections):
                if isinstance(connection, edge.Connection):
                    connection.hurry(now)
        return await super().on_tick(counter)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to drain; a second signal, or Ctrl-C, exits without the wait."""
        if self._health.draining or sig == signal.SIGINT or self._drain_s == 0:
            self._health.draining = True
            super().handle_exit(sig, frame)
            return
        self._health.draining = True
        asyncio.get_running_loop().call_later(self._drain_s, super().handle_exit, sig, frame)


class ServingLoop(uvloop.Loop):
    """A loop whose servers give up TLS handshakes as soon as other slow requests; by itself after a minute."""

    async def create_server(self, *args: Any, **kwargs: Any) -> Any:
        """Create a server as uvicorn asks for it."""
        if kwargs.get("ssl") is not None:
            kwargs |= {"ssl_handshake_timeout": HANDSHAKE_S, "ssl_shutdown_timeout": HANDSHAKE_S}
        return await super().create_server(*args, **kwargs)


def serve(app: FastAPI, settings: Settings) -> None:
    """Run *app* until SIGTERM or Ctrl-C."""
    memory.keep_freed_blocks()
    DrainingServer(server_config(app, settings), app.state.health, settings.drain_s).run()


def server_config(app: FastAPI, settings: Settings) -> uvicorn.Config:
    """Return how the server listens: loaded, since the TLS context of our own is set after loading."""
    metrics: HttpMetrics | None = getattr(app.state, "http_metrics", None)
    door = Door(settings.connections_max, settings.slow_s, metrics.refused if metrics else None)
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        loop="healthguard.serve:ServingLoop",
        http=partial(Connection, door=door),  # type: ignore[arg-type]  # it is called like the class
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        # On by default for peers on loopback: whoever comes through a proxy on this machine could then choose the
        # address by which their attempts are counted.
        proxy_headers=False,
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=settings.shutdown_s,
    )
    config.load()
    if settings.tls_cert_file and settings.tls_key_file:
        config.ssl = tls.serving(settings.tls_cert_file, settings.tls_key_file, settings.tls_client_ca_file)
    return config
