"""
Read the graph of a SavedModel, if it only computes.

A SavedModel is a program: its operations can call Python, read and write files and open connections. What it would run
is compared with a list of operations that only compute, before TensorFlow loads it. A list of the dangerous ones would
be shorter, and would miss the next one.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError
from tensorflow.core.framework.variable_pb2 import VariableDef  # type: ignore[import-not-found]
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel  # type: ignore[import-not-found]

from models.importing.request import CannotImport

COMPUTING = frozenset((Path(__file__).parent / "computing_operations.txt").read_text(encoding="utf-8").split())
"""Operations that neither leave the process nor run forever. Those that assign only fill variables."""

SAVING = frozenset(
    {"SaveV2", "RestoreV2", "ShardedFilename", "MergeV2Checkpoints", "StringJoin", "StaticRegexFullMatch"}
)
"""Operations on files that every SavedModel has for its own weights; only reached by the operations that save them."""


def check(folder: Path) -> None:
    """
    Refuse a SavedModel that could do anything but compute.

    Raises:
        CannotImport: it could; the text names the operation.
    """
    message = SavedModel()
    try:
        message.ParseFromString((folder / "saved_model.pb").read_bytes())
    except DecodeError as error:
        raise CannotImport("saved_model.pb is damaged.") from error
    for graph in message.meta_graphs:
        if graph.asset_file_def:
            raise CannotImport("The SavedModel brings files along that it reads when it loads; none are allowed.")
        check_graph(graph)


def check_graph(graph: Any) -> None:
    """
    Hold all operations of a graph to the two lists; those of *SAVING* only where nothing but saving reaches them.

    Raises:
        CannotImport: another one is there, or can be reached.
    """
    functions = {function.signature.name: list(function.node_def) for function in graph.graph_def.library.function}
    nodes = {node.name: node for node in graph.graph_def.node}
    for node in [*nodes.values(), *(node for body in functions.values() for node in body)]:
        if node.op not in COMPUTING | SAVING and node.op not in functions:
            raise _refusal(node.op)
    run = list(_upstream(nodes, _roots(graph)))
    for node in _reached(run, list(graph.object_graph_def.concrete_functions), functions):
        if node.op not in COMPUTING and node.op not in functions:
            raise _refusal(node.op)
    # With objects, weights are read by operations of TensorFlow's own; without, by what the graph names for it.
    if not graph.HasField("object_graph_def"):
        _check_restoring(nodes, graph.saver_def)


def _check_restoring(nodes: dict[str, Any], saver: Any) -> None:
    """
    Hold what reads the weights to reading, and only from where TensorFlow says that this model's weights are.

    Raises:
        CannotImport: it could write, or read other files.
    """
    place = _node(saver.filename_tensor_name)
    for node in _upstream(nodes, [_node(saver.restore_op_name)]):
        reads = node.op == "RestoreV2" and [_node(name) for name in node.input[:1]] == [place]
        if node.op not in COMPUTING and not reads:
            raise _refusal(node.op)


def check_operations(names: Iterable[str]) -> None:
    """
    Refuse a frozen graph with an operation that does not only compute.

    Raises:
        CannotImport: it has one.
    """
    for name in sorted(set(names)):
        if name not in COMPUTING:
            raise _refusal(name)


def _refusal(operation: str) -> CannotImport:
    return CannotImport(
        f"The model has the operation {operation}, which is not among those that only compute. Models that call "
        "Python, read or write files or loop are not imported."
    )


def _roots(graph: Any) -> list[str]:
    """
    Return the names of the nodes that serving or loading may run: outputs of signatures, and what initialises.

    TensorFlow looks for the latter in several collections (main operation, tables, local variables). All are taken,
    since which ones these are is its own affair and changes.
    """
    names = [info.name for signature in graph.signature_def.values() for info in signature.outputs.values()]
    for collection in graph.collection_def.values():
        names += collection.node_list.value
        for content in collection.bytes_list.value:
            names += _initialisers(content)
    return [_node(name) for name in names]


def _initialisers(content: bytes) -> list[str]:
    """Return the names in a collection's entry, if it is a variable."""
    try:
        variable = VariableDef.FromString(content)
    except DecodeError:
        return []
    return [variable.initializer_name, variable.initial_value_name, variable.snapshot_name]


def _node(name: str) -> str:
    return name.removeprefix("^").partition(":")[0]


def _upstream(nodes: dict[str, Any], names: list[str]) -> Iterator[Any]:
    """Yield the nodes called *names* and everything that they depend on."""
    seen: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name not in seen and name in nodes:
            seen.add(name)
            yield nodes[name]
            waiting += [_node(source) for source in nodes[name].input]


def _reached(nodes: list[Any], called: list[str], functions: dict[str, list[Any]]) -> Iterator[Any]:
    """Yield *nodes* and those of every function that they, or the functions *called*, call."""
    yield from nodes
    seen: set[str] = set()
    waiting = [*called, *_calls(nodes, functions)]
    while waiting:
        name = waiting.pop()
        if name not in seen and name in functions:
            seen.add(name)
            yield from functions[name]
            waiting += _calls(functions[name], functions)


def _calls(nodes: list[Any], functions: dict[str, list[Any]]) -> list[str]:
    """Return the functions that *nodes* name, as their operation or as an attribute."""
    named = [node.op for node in nodes]
    for node in nodes:
        for value in node.attr.values():
            named += [value.func.name, *(each.name for each in value.list.func)]
    return [name for name in named if name in functions]
