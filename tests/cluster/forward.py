"""
Carry TCP connections from 127.0.0.1 of this machine to an address inside the cluster's network namespace.

A thread may enter another network namespace and keep the sockets it has: the listening ones stay outside, those it
opens from then on are inside. That needs no link, route or rule on the machine.
"""

import asyncio
import ctypes
import os
import socket
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

_CLONE_NEWNET = 0x40000000
_CHUNK_BYTES = 1 << 16
_CONNECT_S = 10.0
_Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def listen() -> socket.socket:
    """Open a listening socket on a free port of 127.0.0.1."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(128)
    return listener


def enter_network(pid: int) -> None:
    """
    Move this thread into the network namespace of process *pid*.

    Raises:
        OSError: the process is gone, or this one is not root.
    """
    # os.setns came with Python 3.12; the project starts at 3.11.
    libc = ctypes.CDLL(None, use_errno=True)
    with Path(f"/proc/{pid}/ns/net").open() as namespace:
        if libc.setns(namespace.fileno(), _CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


async def serve(routes: Mapping[socket.socket, tuple[str, int]]) -> None:
    """Carry what arrives on each listening socket to its address, until cancelled."""
    servers = [
        await asyncio.start_server(_carrier(*target), sock=listener, limit=_CHUNK_BYTES)
        for listener, target in routes.items()
    ]
    await asyncio.gather(*(server.serve_forever() for server in servers))


def _carrier(host: str, port: int) -> _Handler:
    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_CONNECT_S):
                inner_reader, inner_writer = await asyncio.open_connection(host, port)
        except (OSError, TimeoutError):
            writer.close()
            return
        try:
            await asyncio.gather(_copy(reader, inner_writer), _copy(inner_reader, writer))
        finally:
            inner_writer.close()
            writer.close()

    return carry


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while chunk := await reader.read(_CHUNK_BYTES):
            writer.write(chunk)
            await writer.drain()
        # Half closed, not closed: the other side may still be answering.
        writer.write_eof()
    except OSError:
        writer.close()
