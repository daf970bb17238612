"""Run an application of this process as its service runs it: behind the server of `healthguard.serve`."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI

from healthguard.serve import DrainingServer, server_config
from healthguard.settings import Settings


@asynccontextmanager
async def serving(app: FastAPI, **settings: Any) -> AsyncIterator[int]:
    """Serve *app*, a HealthGuard service, for the block; yield its port."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(2048)
        found = Settings(port=listener.getsockname()[1], **({"shutdown_s": 1} | settings))
        server = DrainingServer(server_config(app, found), app.state.health, 0)
        task = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            async with asyncio.timeout(20):
                while not server.started:
                    await asyncio.sleep(0.005)
            yield found.port
        finally:
            server.should_exit = True
            await task
