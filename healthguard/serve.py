"""How every HTTP service runs: one process, uvloop, drained on SIGTERM."""

import asyncio
import signal
import ssl
from types import FrameType

import uvicorn
from fastapi import FastAPI

from healthguard.health import Health
from healthguard.settings import Settings

KEEP_ALIVE_S = 75
BACKLOG = 512


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

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to drain; a second signal, or Ctrl-C, exits without the wait."""
        if self._health.draining or sig == signal.SIGINT or self._drain_s == 0:
            self._health.draining = True
            super().handle_exit(sig, frame)
            return
        self._health.draining = True
        asyncio.get_running_loop().call_later(self._drain_s, super().handle_exit, sig, frame)


def serve(app: FastAPI, settings: Settings) -> None:
    """Run *app* until SIGTERM or Ctrl-C."""
    DrainingServer(server_config(app, settings), app.state.health, settings.drain_s).run()


def server_config(app: FastAPI, settings: Settings) -> uvicorn.Config:
    """Return how the server listens: loaded, since TLS 1.2 at least is set on the context that loading makes."""
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        loop="uvloop",
        http="httptools",
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
        # The ciphers are Python's own default. No client certificates: the kubelet's probes have none, and who a caller
        # is, its token or the gateway's secret says.
        ssl_certfile=settings.tls_cert_file,
        ssl_keyfile=str(settings.tls_key_file) if settings.tls_key_file else None,
    )
    config.load()
    if config.ssl is not None:
        # Python's default is whatever OpenSSL was built with: 1.2 in most builds, anything at all in Debian 12's.
        config.ssl.minimum_version = ssl.TLSVersion.TLSv1_2
    return config
