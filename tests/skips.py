"""What did not run: how several runs of pytest tell it to whoever started them, and when it counts as failed."""

import os

DID_NOT_RUN = "HEALTHGUARD_DID_NOT_RUN"
"""Names the file into which each run of pytest writes what did not run."""


def in_ci() -> bool:
    """Tell whether a machine looks at the outcome, which overlooks what is only written."""
    return os.environ.get("CI", "").lower() not in {"", "0", "false"}
