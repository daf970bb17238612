"""`python -m serving.modelserver --port=8500 --model_config_file=…`: the embedded model server."""

import asyncio
import os
import sys
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NoReturn, cast

from healthguard import memory
from healthguard.logging import configure_logging
from serving.modelserver import flags as command_line
from serving.modelserver.config import BadConfig, batching_of, models_of
from serving.modelserver.lifecycle import NothingToServe
from serving.modelserver.refusals import Refused
from serving.modelserver.server import CannotListen, run
from serving.modelserver.tls import Certificates

if TYPE_CHECKING:
    from serving.modelserver.monitoring import Metrics


def main(arguments: list[str]) -> int:
    """Serve; return 0 after an orderly end, 2 for flags or files that cannot be honoured, 1 for the rest."""
    if "--help" in arguments:
        print(command_line.usage())  # noqa: T201 - a command's answer
        return 0
    if "--version" in arguments:
        print(f"HealthGuard model server: {version('healthguard')}")  # noqa: T201 - a command's answer
        return 0
    try:
        flags = command_line.parse(arguments)
        configured, batching = models_of(flags), batching_of(flags)
        certificates = Certificates(Path(flags.ssl_config_file)) if flags.ssl_config_file else None
        metrics = _metrics(flags)
    except (command_line.BadFlags, BadConfig) as exc:
        print(f"modelserver: {exc}", file=sys.stderr)  # noqa: T201 - logging is not set up yet
        return 2
    configure_logging("modelserver", cast(Literal["DEBUG", "INFO", "WARNING"], flags.log_level))
    memory.keep_freed_blocks()
    try:
        asyncio.run(run(flags, configured, batching, certificates, metrics))
    except (NothingToServe, CannotListen) as exc:
        print(f"modelserver: {exc}", file=sys.stderr)  # noqa: T201 - for the one who started it
        return 1
    except Refused as exc:
        print(f"Failed to start server. Error: {exc.code.name}: {exc.details}", file=sys.stderr)  # noqa: T201
        return 1
    return 0


def _metrics(flags: command_line.Flags) -> "Metrics | None":
    """
    Return the metrics that are asked for; only then their library is imported.

    Raises:
        BadConfig: the monitoring configuration is not usable.
    """
    if not flags.monitoring_config_file:
        return None
    from serving.modelserver.monitoring import metrics_of  # noqa: PLC0415

    return metrics_of(flags)


def leave(status: int) -> NoReturn:
    """
    End the process now.

    Python's own end waits for every thread of a pool, and one of them may be loading for minutes, or hang in a mount.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    leave(main(sys.argv[1:]))
