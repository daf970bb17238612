"""`python -m serving.operator`: look after the ServedModels of a cluster, or of some of its namespaces."""

import asyncio
import logging

from healthguard.logging import configure_logging
from serving.operator.operate import operate
from serving.operator.settings import OperatorSettings


def main() -> None:
    """Run the operator with the settings of the environment."""
    settings = OperatorSettings()
    configure_logging("operator", settings.log_level, settings.log_format)
    # kopf tells of every event that it hands on: that is a line per pod and change.
    logging.getLogger("kopf").setLevel(logging.WARNING)
    asyncio.run(operate(settings))


if __name__ == "__main__":
    main()
