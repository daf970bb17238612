"""Read what a service answered, to its end and no further than agreed."""

import aiohttp


class AnswerTooLong(ValueError):
    """An answer's body goes on beyond its bound."""


async def read_bounded(content: aiohttp.StreamReader, bytes_max: int) -> bytes:
    """
    Read an answer's body to its end; `StreamReader.read(n)` would give whatever part of it has arrived.

    Raises:
        AnswerTooLong: it is longer than *bytes_max*.
    """
    body = bytearray()
    async for chunk in content.iter_any():
        body += chunk
        if len(body) > bytes_max:
            raise AnswerTooLong
    return bytes(body)
