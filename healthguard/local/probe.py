"""Ask a process of ours whether it is ready: plain sockets, so that the supervisor needs no HTTP library."""

import asyncio
import contextlib

PROBE_S_MAX = 2.0
_STATUS_LINE_BYTES_MAX = 256


async def http_ready(port: int, path: str = "/readyz") -> bool:
    """Tell whether `GET path` at 127.0.0.1 is answered with 200."""
    request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n".encode()
    try:
        async with asyncio.timeout(PROBE_S_MAX):
            reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=_STATUS_LINE_BYTES_MAX)
            try:
                writer.write(request)
                status_line = await reader.readline()
            finally:
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()
    except (OSError, TimeoutError, ValueError):
        return False
    return status_line.split(b" ")[1:2] == [b"200"]


async def tcp_ready(port: int) -> bool:
    """Tell whether something listens at 127.0.0.1."""
    try:
        async with asyncio.timeout(PROBE_S_MAX):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
    except (OSError, TimeoutError):
        return False
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return True
