"""
The cluster's command: `python -m tests.cluster up | down | status | deps | build`.

The other subcommands are processes of a running cluster, and nobody's to call.
"""

import argparse
import asyncio
import os
import sys
from collections.abc import Callable
from pathlib import Path

from tests.cluster import enforcement, forward, keeper, node, storage, tools
from tests.cluster.cluster import PEOPLE, DidNotStart, start, stop
from tests.cluster.progress import say
from tests.cluster.runs import Run
from tests.images import base


def _up(_: argparse.Namespace) -> None:
    if PEOPLE.alive:
        say("it runs already; `make cluster-down` ends it")
    else:
        start(PEOPLE, attached=False)
    _status(_)


def _down(_: argparse.Namespace) -> None:
    stop(PEOPLE)
    say("gone")


def _status(_: argparse.Namespace) -> None:
    record = PEOPLE.read()
    if record is None or not record.keeper.alive:
        say("not running; `make cluster` starts it")
        sys.exit(3)
    # On standard output alone, so that `eval "$(python -m tests.cluster status)"` sets up a shell.
    sys.stdout.write(f"export KUBECONFIG={PEOPLE.kubeconfig} PATH={tools.program('kubectl').parent}:$PATH\n")
    say(f"ingress: http://127.0.0.1:{record.http_port} and https://127.0.0.1:{record.https_port}")


def _deps(_: argparse.Namespace) -> None:
    """Bring what the suites need; what this machine cannot have is said, and is no failure of this step."""
    steps: list[Callable[[], object]] = [tools.build_clients]
    if os.environ.get("KUBECONFIG"):
        say("KUBECONFIG names a cluster, so no node is made ready")
    elif _possible(tools.install_packages):
        steps = [tools.build_all, base.base]
    for step in steps:
        _possible(step)


def _possible(step: Callable[[], object]) -> bool:
    try:
        step()
    except tools.Unavailable as reason:
        say(f"{reason} What needs it will be named by `make test` among what did not run.")
        return False
    return True


def _build(_: argparse.Namespace) -> None:
    tools.build_all()


def _keep(arguments: argparse.Namespace) -> None:
    keeper.keep(Run(arguments.name), attached=arguments.attached)


def _node(arguments: argparse.Namespace) -> None:
    node.run(Run(arguments.name).folder)


def _forward(arguments: argparse.Namespace) -> None:
    listener = forward.listen()
    sys.stdout.write(f"{listener.getsockname()[1]}\n")
    sys.stdout.flush()
    forward.enter_network(arguments.pid)
    asyncio.run(forward.serve({listener: (arguments.host, arguments.port)}))


def _policies(arguments: argparse.Namespace) -> None:
    enforcement.run(Path(arguments.pki))


def _storage(arguments: argparse.Namespace) -> None:
    storage.run(Path(arguments.pki), Path(arguments.folder))


def main() -> None:
    """Run the command that the arguments name."""
    parser = argparse.ArgumentParser(prog="python -m tests.cluster", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="up|down|status|deps|build")

    def add(name: str, action: Callable[[argparse.Namespace], None], *positional: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name)
        command.set_defaults(action=action)
        for argument in positional:
            command.add_argument(argument, type=int if argument in {"pid", "port"} else str)
        return command

    add("up", _up)
    add("down", _down)
    add("status", _status)
    add("deps", _deps)
    add("build", _build)
    add("keep", _keep, "name").add_argument("--attached", action="store_true")
    add("node", _node, "name")
    add("forward", _forward, "pid", "host", "port")
    add("policies", _policies, "pki")
    add("storage", _storage, "pki", "folder")
    arguments = parser.parse_args()
    try:
        arguments.action(arguments)
    except (tools.Unavailable, DidNotStart) as reason:
        say(str(reason))
        sys.exit(1)


if __name__ == "__main__":
    main()
