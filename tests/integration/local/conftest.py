"""One product for all tests that only use it."""

import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.local.product import Up, start


@pytest.fixture(scope="session")
def product() -> Iterator[Up]:
    """Run `healthguard up` for the session; Ctrl-C ends it."""
    with (
        tempfile.TemporaryDirectory(prefix="hg-up-") as name,
        start(Path(name), "--free-ports", "--data-dir", f"{name}/data") as found,
    ):
        yield found
        found.process.send_signal(signal.SIGINT)
        assert found.process.wait(60) == 0
