"""The ports of an installation."""

import socket
from dataclasses import replace

import pytest

from healthguard.local import ports
from healthguard.local.ports import PortTaken


def test_ports_name_the_one_that_is_taken() -> None:
    """The message has the number, whose it is and the option."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(PortTaken, match=rf"Port {port} \(auth\).*--auth-port"):
            ports.check(replace(ports.free_ports(), auth=port))


def test_ports_may_not_stand_twice() -> None:
    """Two services cannot share one port."""
    free = ports.free_ports()
    with pytest.raises(PortTaken, match="--port and --records-port"):
        ports.check(replace(free, records=free.gateway))


def test_free_ports_are_free_and_different() -> None:
    """What is offered can be used at once."""
    ports.check(ports.free_ports())
