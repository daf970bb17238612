"""
Let the official TensorFlow Serving messages be imported without importing TensorFlow.

Their modules import `tensorflow.core…_pb2`, and Python imports a package before its modules: all of TensorFlow (3 s,
500 MB, 1.3 GB on disk) for a handful of message types. So while they are imported, the name `tensorflow` is a bare
module that knows only where to look: in `slim/`, where the few messages that we use live under their official names, or
in TensorFlow's own folder where TensorFlow is installed. One process must not see both sets, because the message names
would clash.
"""

import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

SLIM = Path(__file__).with_name("slim")


@contextmanager
def tensorflow_protos() -> Iterator[None]:
    """
    Answer `import tensorflow…_pb2` from message modules alone, for the length of the block.

    Afterwards `import tensorflow` means what it always meant: TensorFlow itself, or ModuleNotFoundError.
    """
    if "tensorflow" in sys.modules:
        yield
        return
    roots = {name: _bare_package(name, folders) for name, folders in _folders().items()}
    sys.modules.update(roots)
    try:
        yield
    finally:
        for name in roots:
            del sys.modules[name]


def _folders() -> dict[str, list[str]]:
    """Return by root package where the message modules are: TensorFlow's folder if it is installed, else ours."""
    spec = importlib.util.find_spec("tensorflow")
    if spec is None or spec.submodule_search_locations is None:
        return {name: [str(SLIM / name)] for name in ("tensorflow", "xla")}
    return {"tensorflow": list(spec.submodule_search_locations)}


def _bare_package(name: str, folders: list[str]) -> ModuleType:
    """Return a package that runs no code and only says where its modules are."""
    package = ModuleType(name)
    package.__path__ = folders
    return package
