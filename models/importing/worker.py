"""
Build one version in a process of its own: `python -m models.importing.worker`, a request in, lines of JSON out.

TensorFlow is in another environment than the command. And a file that breaks what reads it, or makes it ask for all
memory of the machine, then breaks nothing else.
"""

import json
import os
import resource
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from models.importing.request import CannotImport, Request

MEMORY_BYTES_MIN = 6 * 1024**3
MEMORY_PER_BYTE = 12
"""A file of a few lines can ask for layers of terabytes. An honest one is held about ten times while it is built."""

FILE_BYTES_MAX = 4 * 1024**3


def main() -> int:
    """Build one version; return 0 if it is there, 1 if it was refused."""
    given = json.load(sys.stdin)
    confine(given["source_bytes"])
    # TensorFlow writes to standard output as it likes: ours goes to a copy, and the rest to standard error.
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as lines:
        os.dup2(2, 1)

        def tell(**event: Any) -> None:
            print(json.dumps(event), file=lines, flush=True)

        try:
            done = _built(given, lambda sentence: tell(say=sentence))
        except CannotImport as error:
            tell(refused=str(error))
            return 1
        except MemoryError:
            tell(refused="The network needs more memory than a file of its size should.")
            return 1
        tell(done=done)
    return 0


def confine(source_bytes: int) -> None:
    """Let this process have no more memory, and write no larger files, than a source of *source_bytes* needs."""
    memory = MEMORY_BYTES_MIN + MEMORY_PER_BYTE * source_bytes
    for kind, most in ((resource.RLIMIT_DATA, memory), (resource.RLIMIT_FSIZE, FILE_BYTES_MAX)):
        _, hard = resource.getrlimit(kind)
        least = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (least, least))


def _built(given: dict[str, Any], say: Callable[[str], None]) -> dict[str, Any]:
    request, digest, made = Request.from_json(given["request"]), given["source_digest"], Path(given["made"])
    if given["format"] == "tflite":
        from models.importing import litert_build  # noqa: PLC0415 - each of the two has only its own framework

        difference, limitations = litert_build.build(request, digest, made, say)
        return {"difference": difference, "between_files": None, "limitations": limitations}
    from models.importing import build  # noqa: PLC0415

    return asdict(build.build(request, given["format"], digest, made, say))


if __name__ == "__main__":
    sys.exit(main())
