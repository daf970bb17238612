"""`python -m serving.modelserver --port=8500 --model_config_file=…`: the embedded model server."""

import asyncio
import sys
from typing import Literal, cast

from healthguard.logging import configure_logging
from serving.modelserver import flags as command_line
from serving.modelserver.config import BadConfig, batching_of, models_of
from serving.modelserver.lifecycle import NothingToServe
from serving.modelserver.server import CannotListen, run


def main(arguments: list[str]) -> int:
    """Serve; return 0 after an orderly end, 2 for flags or files that cannot be honoured, 1 for the rest."""
    if "--help" in arguments:
        print(command_line.usage())  # noqa: T201 - a command's answer
        return 0
    try:
        flags = command_line.parse(arguments)
        configured, batching = models_of(flags), batching_of(flags)
    except (command_line.BadFlags, BadConfig) as exc:
        print(f"modelserver: {exc}", file=sys.stderr)  # noqa: T201 - logging is not set up yet
        return 2
    configure_logging("modelserver", cast(Literal["DEBUG", "INFO", "WARNING"], flags.log_level))
    try:
        asyncio.run(run(flags, configured, batching))
    except (NothingToServe, CannotListen) as exc:
        print(f"modelserver: {exc}", file=sys.stderr)  # noqa: T201 - for the one who started it
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
