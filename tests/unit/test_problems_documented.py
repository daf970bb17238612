"""Every problem type is documented, and nothing is documented that does not exist."""

import importlib
import re
from pathlib import Path

import auth.problems
import gateway.problems
import records.problems
from healthguard.problems import Problem

DOCS = Path(__file__).parents[2] / "docs" / "problems.md"
SERVICES = (auth.problems, gateway.problems, records.problems)


def subclasses(kind: type[Problem]) -> set[type[Problem]]:
    """Return all classes below *kind* that belong to the product."""
    below = {found for direct in kind.__subclasses__() for found in {direct} | subclasses(direct)}
    return {found for found in below if not found.__module__.startswith("test")}


def test_problem_types_are_the_documented_ones() -> None:
    """A new problem needs its line in docs/problems.md: slug and status, as the table has them."""
    for module in SERVICES:
        importlib.import_module(module.__name__)
    rows = re.findall(r"^\| `([a-z0-9-]+)` \| (\d{3}) \|", DOCS.read_text(), re.MULTILINE)
    documented = {(slug, int(status)) for slug, status in rows}
    assert documented == {(kind.slug, kind.status) for kind in subclasses(Problem) if "slug" in vars(kind)}
