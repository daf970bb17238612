"""A stretch of wire between the gateway and a model server, which is slow or breaks when a test says so."""

import asyncio
import socket
import struct
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Self

CHUNK = 64 * 1024


@dataclass
class Wire:
    """
    A TCP relay to *target*.

    A few lines of our own and not toxiproxy: delay and reset are all that is needed, and a proxy in this process turns
    at the line of the test where it should.
    """

    target: str
    delay_s: float = 0.0
    """How much later each piece of an answer arrives."""
    broken: bool = False
    """Every connection is reset as soon as something is sent over it."""
    address: str = ""
    _connections: set["asyncio.Task[None]"] = field(default_factory=set)

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.address = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)
        host, _, port = self.target.rpartition(":")
        try:
            # Cancelled only when the test is over; asyncio would log that as if something had gone wrong.
            with suppress(OSError, asyncio.CancelledError):
                far_reader, far_writer = await asyncio.open_connection(host, int(port))
                try:
                    there = asyncio.create_task(self._there(reader, far_writer, writer))
                    back = asyncio.create_task(self._back(far_reader, writer))
                    await asyncio.wait({there, back}, return_when=asyncio.FIRST_COMPLETED)
                    for one in (there, back):
                        one.cancel()
                    await asyncio.gather(there, back, return_exceptions=True)
                finally:
                    far_writer.close()
        finally:
            writer.close()

    async def _there(self, reader: asyncio.StreamReader, far: asyncio.StreamWriter, near: asyncio.StreamWriter) -> None:
        while data := await reader.read(CHUNK):
            if self.broken:
                # A close that lingers for no time sends a reset.
                near.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                return
            far.write(data)
            await far.drain()

    async def _back(self, far: asyncio.StreamReader, near: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        pieces: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(1000)

        async def send() -> None:
            while True:
                due, data = await pieces.get()
                await asyncio.sleep(max(0.0, due - loop.time()))
                near.write(data)
                await near.drain()

        sending = asyncio.create_task(send())
        try:
            while data := await far.read(CHUNK):
                await pieces.put((loop.time() + self.delay_s, data))
        finally:
            sending.cancel()
