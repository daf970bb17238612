"""
JSON logs: one line per event, the same fields from every service, with the request id from the context.

Fields: timestamp (RFC 3339, UTC), level, service, message (an event name in the past tense, such as
`prediction_served`), request_id, duration_ms, and identifiers. Never images, names, scores or tokens. Exception texts
are left out too, since they quote values; the type and the frames stay.
"""

import logging
import sys
import traceback
from contextlib import suppress
from functools import partial
from typing import Any, Literal, TextIO

import structlog
from structlog.types import EventDict, Processor, WrappedLogger


def frames_of(exc: BaseException) -> list[str]:
    """Return where *exc* passed, innermost last, as `file:line function`."""
    return [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in traceback.extract_tb(exc.__traceback__)]


def configure_logging(
    service: str,
    level: Literal["DEBUG", "INFO", "WARNING"] = "INFO",
    output: Literal["json", "console"] = "json",
) -> None:
    """
    Send structlog's and the standard library's events, in one form, to standard output.

    Ours go there at once: the standard library's way of a record, handlers and a formatter would double what a line
    costs, and every request has one.
    """

    def add_service(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        event["service"] = service
        return event

    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        add_service,
        _exception_without_text,
    ]
    renderers: list[Processor] = (
        [structlog.processors.EventRenamer("message"), structlog.processors.JSONRenderer()]
        if output == "json"
        else [structlog.dev.ConsoleRenderer()]
    )
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderers],
    )
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    structlog.configure(
        processors=[*shared, *renderers],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(level)),
        logger_factory=partial(_new_output, sys.stdout),
        cache_logger_on_first_use=True,
    )


class _Output(structlog.WriteLogger):
    """
    Writes lines to standard output; where nobody reads it any more, or the disk behind it is full, they are lost.

    A request must not fail because the log of it did: whoever collects logs restarts more often than we do.
    """

    def msg(self, message: str) -> None:
        """Write a line."""
        with suppress(OSError):
            super().msg(message)

    log = debug = info = warn = warning = msg
    fatal = failure = err = error = critical = exception = msg


def _new_output(file: TextIO, *_: object) -> _Output:
    return _Output(file)


def _exception_without_text(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Replace an exception by its type and frames: drivers quote row values in their messages."""
    info: Any = event.pop("exc_info", None)
    if info is True:
        info = sys.exc_info()
    exc = info if isinstance(info, BaseException) else (info or (None, None, None))[1]
    if exc is not None:
        event["exception"] = type(exc).__qualname__
        event["frames"] = frames_of(exc)
    return event
