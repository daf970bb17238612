"""Every select on patients' rows goes through `store.visible_to`: the source is read to see that it does."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import records

PACKAGE = Path(records.__file__).parent
DOOR = "visible_to"
STATEMENTS = {"select", "text", "update", "delete", "exists", "union", "union_all"}
# Tables without a finding. All other names of a table in a statement are patients' rows.
FREE = {"_KEYS", "IdempotencyKey", "Patient"}
PATIENTS_ROWS = {"Prediction", "_PREDICTIONS", "_SAVED_COLUMNS"}
# What reads rows without a statement: `session.get`, `session.query`, `session.refresh`.
READERS = {"get", "get_one", "query", "refresh", "exec_driver_sql"}


def called(node: ast.Call) -> str:
    """Return the last name of what is called."""
    return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")


def on_session(function: ast.expr) -> bool:
    """Tell whether *function* is a method of the session itself."""
    return isinstance(function, ast.Attribute) and getattr(function.value, "id", "") == "session"


def names_in(node: ast.AST) -> set[str]:
    """Return all names below *node*."""
    return {found.id for found in ast.walk(node) if isinstance(found, ast.Name)}


def other_doors(source: str) -> Iterator[int]:
    """Yield the lines of *source* that reach patients' rows beside the door."""
    tree = ast.parse(source)
    inside = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef) and function.name == DOOR
        for node in ast.walk(function)
    }
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or id(node) in inside:
            continue
        statement = called(node) in STATEMENTS and isinstance(node.func, ast.Name)
        reads = called(node) in READERS and on_session(node.func)
        if reads or (statement and (PATIENTS_ROWS & names_in(node) or raw_sql(node))):
            yield node.lineno


def raw_sql(node: ast.Call) -> bool:
    """Tell whether the call is SQL as text that names the table, or that nobody can read here."""
    if called(node) != "text":
        return False
    return not (node.args and isinstance(node.args[0], ast.Constant) and "predictions" not in str(node.args[0].value))


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_patients_rows_have_one_door(path: Path) -> None:
    """No file of the package reaches them otherwise; migrations change the schema and read no row."""
    lines = list(other_doors(path.read_text()))
    if path.relative_to(PACKAGE).parts[0] == "migrations":
        lines = []

    assert lines == []


@pytest.mark.parametrize(
    "source",
    [
        "select(Prediction)",
        "select(func.count()).select_from(Prediction)\nselect(col(Prediction.id))",
        "delete(Prediction)",
        "update(_PREDICTIONS).values(owner=None)",
        "async def f(session): return await session.get(Prediction, 1)",
        "async def f(session): await session.refresh(row)",
        "text('select * from predictions')",
        "text(statement)",
    ],
)
def test_another_door_is_found(source: str) -> None:
    """The check itself bites."""
    assert list(other_doors(source))


@pytest.mark.parametrize(
    "source",
    [
        "def visible_to(viewer): return select(Prediction)",
        "select(col(IdempotencyKey.fingerprint))",
        "delete(_KEYS)",
        "text('select 1')",
        "request.headers.get('x')",
    ],
)
def test_what_is_no_door_is_not_found(source: str) -> None:
    """The check does not cry wolf."""
    assert not list(other_doors(source))
