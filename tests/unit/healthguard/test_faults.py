"""Each thing that is in the way to a gateway is told apart, against real sockets and an authority of the test's own."""

import datetime
import os
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from healthguard import faults
from healthguard.client import Client, Unreachable, wait_before_retry_s
from healthguard.faults import Fault
from healthguard.install.certificates import Pair, issue, make_authority
from healthguard.tls import serving

NOW = datetime.datetime.now(datetime.UTC)
LONG_AGO = NOW - datetime.timedelta(days=2000)
AUTHORITY = make_authority(NOW)
OLD = make_authority(LONG_AGO)
SCRIPT = Path(sys.executable).parent / "healthguard"


class _NoModels(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        """Answer that nothing is served."""
        body = b'{"models": []}'
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class _Quiet(ThreadingHTTPServer):
    def handle_error(self, *_: object) -> None:
        """Say nothing: handshakes fail here because they are to."""


@contextmanager
def _listening(context: ssl.SSLContext | None = None) -> Iterator[int]:
    with _Quiet(("127.0.0.1", 0), _NoModels) as server:
        if context is not None:
            server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


def _context(folder: Path, authority: Pair, name: str, now: datetime.datetime) -> ssl.SSLContext:
    pair = issue(authority, [name], now)
    (folder / "tls.crt").write_bytes(pair.certificate)
    (folder / "tls.key").write_bytes(pair.key)
    (folder / "ca.crt").write_bytes(authority.certificate)
    return serving(folder / "tls.crt", folder / "tls.key")


def _fault(url: str, ca_file: Path | None = None) -> Fault | None:
    with Client(url, ca_file=ca_file) as client, pytest.raises(Unreachable) as raised:
        client.models()
    return raised.value.fault


def _told(tmp_path: Path, *words: str) -> str:
    environment = {**os.environ, "XDG_CONFIG_HOME": str(tmp_path / "config")}
    environment.pop("HEALTHGUARD_CA_FILE", None)
    done = subprocess.run(
        (str(SCRIPT), "stats", *words), capture_output=True, text=True, timeout=60, check=False, env=environment
    )
    assert done.returncode in {3, 4}
    return done.stderr


def test_authority_of_ones_own_is_trusted_when_it_is_named(tmp_path: Path) -> None:
    """A gateway behind a hospital's own authority can be called, and without its certificate it cannot."""
    with _listening(_context(tmp_path, AUTHORITY, "localhost", NOW)) as port:
        url = f"https://localhost:{port}"
        with Client(url, ca_file=tmp_path / "ca.crt") as client:
            assert client.models() == []
        assert _fault(url) is Fault.UNTRUSTED
        assert "--ca-file" in _told(tmp_path, "--url", url)
        assert "Nobody is logged in" in _told(tmp_path, "--url", url, "--ca-file", str(tmp_path / "ca.crt"))


def test_authority_comes_besides_the_systems(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever names one goes on trusting those that this machine's administrators trust."""
    with _listening(_context(tmp_path, AUTHORITY, "localhost", NOW)) as port:
        other = tmp_path / "other.crt"
        other.write_bytes(make_authority(NOW).certificate)
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.crt"))
        with Client(f"https://localhost:{port}", ca_file=other) as client:
            assert client.models() == []


@pytest.mark.parametrize(
    ("authority", "name", "now", "expected"),
    [
        (AUTHORITY, "elsewhere", NOW, Fault.OTHER_NAME),
        (AUTHORITY, "localhost", LONG_AGO, Fault.OUT_OF_DATE),
        (make_authority(NOW), "localhost", NOW, Fault.UNTRUSTED),
    ],
    ids=["another name", "out of date", "another authority"],
)
def test_certificate_that_is_not_right_says_why(
    authority: Pair, name: str, now: datetime.datetime, expected: Fault, tmp_path: Path
) -> None:
    """Only one of the three is mended by naming an authority."""
    context = _context(tmp_path, authority, name, now)
    trusted = tmp_path / "trusted.crt"
    trusted.write_bytes(AUTHORITY.certificate)
    with _listening(context) as port:
        assert _fault(f"https://localhost:{port}", trusted) is expected


def test_tls_and_plain_are_told_apart(tmp_path: Path) -> None:
    """Each is told by which beginning its address has."""
    with _listening() as port:
        assert _fault(f"https://localhost:{port}") is Fault.NOT_TLS
        assert not faults.speaks_tls(f"http://localhost:{port}")
        assert f" http://localhost:{port}" in _told(tmp_path, "--url", f"https://localhost:{port}").partition("? ")[0]
    with _listening(_context(tmp_path, AUTHORITY, "localhost", NOW)) as port:
        assert faults.speaks_tls(f"http://localhost:{port}")
        assert f"begins with https: https://localhost:{port}" in _told(tmp_path, "--url", f"http://localhost:{port}")


def test_closed_port_and_unknown_name_are_told_apart(tmp_path: Path) -> None:
    """`up` is named for this machine only: it starts nothing elsewhere."""
    assert _fault("http://127.0.0.1:1") is Fault.REFUSED
    assert _fault("http://gateway.invalid") is Fault.NO_NAME
    assert "up` starts it" in _told(tmp_path, "--url", "http://127.0.0.1:1")
    elsewhere = _told(tmp_path, "--url", "http://gateway.invalid")
    assert "its name cannot be looked up" in elsewhere
    assert "up` starts it" not in elsewhere


def test_silence_is_told_as_such() -> None:
    """A server that takes the connection and says nothing is no broken connection."""
    error = RuntimeError()
    error.__cause__ = TimeoutError()
    assert faults.of(error) is Fault.SLOW
    assert faults.of(socket.gaierror(-2, "x")) is Fault.NO_NAME
    assert faults.of(ConnectionResetError()) is Fault.LOST


@pytest.mark.parametrize("fault", list(Fault))
def test_only_what_may_pass_is_tried_again(fault: Fault) -> None:
    """A certificate is no better after a second."""
    assert (wait_before_retry_s(Unreachable("", fault), 1, 30.0) is None) == (fault in faults.LASTING)


@pytest.mark.parametrize(
    ("url", "local"),
    [
        ("http://127.0.0.1:8004", True),
        ("http://127.9.9.9", True),
        ("http://[::1]:1", True),
        ("http://LOCALHOST", True),
        ("https://gateway.example", False),
        ("http://10.0.0.1", False),
    ],
)
def test_this_machine_is_known(url: str, local: bool) -> None:
    """By its loopback addresses and their name."""
    assert faults.is_local(url) is local


def test_file_without_a_certificate_is_a_usage_error(tmp_path: Path) -> None:
    """It is told before anything is called, and not as a certificate that is not trusted."""
    (tmp_path / "ca.crt").write_text("none")
    for file in (tmp_path / "ca.crt", tmp_path / "nowhere"):
        words = (str(SCRIPT), "stats", "--ca-file", str(file))
        done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 2
        assert "ca-file" in done.stderr
