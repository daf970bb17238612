"""Logs: the fields that machines read, and the texts that must not be in them."""

import json
import logging
import os
import sys
from contextlib import suppress
from pathlib import Path

import pytest
import structlog

from healthguard.logging import configure_logging

SECRET = "jane-doe-1970"


@pytest.fixture(autouse=True)
def _logging_as_before() -> object:
    """Give the test session its own logging back."""
    root = logging.getLogger()
    before = (root.handlers[:], root.level)
    yield
    root.handlers[:], _ = before
    root.setLevel(before[1])
    structlog.reset_defaults()


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    """Return the log lines that were written, parsed."""
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_log_line_has_the_fields_that_old_monitors_read(capsys: pytest.CaptureFixture[str]) -> None:
    """timestamp, level, service, message and duration_ms keep their names."""
    configure_logging("gateway")
    structlog.get_logger().info("prediction_served", duration_ms=12.5)
    (line,) = lines(capsys)
    assert line.pop("timestamp").endswith("Z")  # type: ignore[attr-defined]
    assert line == {"level": "info", "service": "gateway", "message": "prediction_served", "duration_ms": 12.5}


def test_log_of_an_exception_has_its_type_and_frames_but_not_its_text(capsys: pytest.CaptureFixture[str]) -> None:
    """Database drivers quote row values in their messages, whoever logs them."""
    configure_logging("records")
    try:
        raise ValueError(SECRET)
    except ValueError:
        structlog.get_logger().exception("save_failed")
        logging.getLogger("sqlalchemy").exception("driver failed")
    out = lines(capsys)
    assert [line["exception"] for line in out] == ["ValueError", "ValueError"]
    assert SECRET not in json.dumps(out)
    assert "test_logging.py" in json.dumps(out[0]["frames"])


@pytest.mark.parametrize("broken", ["a pipe that nobody reads", "/dev/full"])
def test_log_that_cannot_be_written_harms_nobody(broken: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A collector that is gone, or a full disk, loses lines: no request fails for them."""
    if broken == "/dev/full":
        out = Path(broken).open("w", encoding="utf-8")  # noqa: SIM115 - closed below, where that fails, too
    else:
        read, write = os.pipe()
        os.close(read)
        out = os.fdopen(write, "w", encoding="utf-8")
    monkeypatch.setattr(sys, "stdout", out)
    try:
        configure_logging("gateway")
        for _ in range(2):
            structlog.get_logger().info("prediction_served")
        with pytest.raises(OSError, match=r"pipe|space"):
            print("It is really broken.", file=out, flush=True)
    finally:
        with suppress(OSError):
            out.close()


def test_log_below_the_level_is_not_written(capsys: pytest.CaptureFixture[str]) -> None:
    """The level by environment (DEBUG, INFO, WARNING) holds for both kinds of logger."""
    configure_logging("auth", "WARNING")
    structlog.get_logger().info("key_loaded")
    logging.getLogger("any").info("chatter")
    assert lines(capsys) == []
