"""The TCP ports of one installation, all at 127.0.0.1, looked at before anything starts."""

import socket
from contextlib import ExitStack
from dataclasses import dataclass, fields

HOST = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Ports:
    """One port a process; each has an option of `healthguard up`."""

    gateway: int = 8004
    auth: int = 8000
    records: int = 8002
    modelserver: int = 8500


OPTIONS = {"gateway": "--port", "auth": "--auth-port", "records": "--records-port", "modelserver": "--modelserver-port"}


class PortTaken(RuntimeError):
    """Another program listens where we should."""


def check(ports: Ports) -> None:
    """
    Return when every port is free.

    Raises:
        PortTaken: one is not, or stands twice; the message names it and the option that changes it.
    """
    seen: dict[int, str] = {}
    for entry in fields(Ports):
        port, option = getattr(ports, entry.name), OPTIONS[entry.name]
        if port in seen:
            raise PortTaken(f"{seen[port]} and {option} are both {port}: give each its own port.")
        seen[port] = option
        if not _free(port):
            raise PortTaken(f"Port {port} ({entry.name}) is taken by another program: choose another with {option}.")


def _free(port: int) -> bool:
    with socket.socket() as probe:
        # As the servers do: connections of an earlier run that are still ebbing away do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def free_ports() -> Ports:
    """Return ports that were free a moment ago, all different; for tests and trials."""
    with ExitStack() as held:
        probes = [held.enter_context(socket.socket()) for _ in fields(Ports)]
        for probe in probes:
            probe.bind((HOST, 0))
        return Ports(*(probe.getsockname()[1] for probe in probes))
