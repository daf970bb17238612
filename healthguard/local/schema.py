"""
Whether a database needs its migrations, asked without starting Alembic, which takes a second of every start.

The answer is Alembic's own: it has nothing to do where the one row of its table is the newest revision of its files.
"""

import ast
from pathlib import Path

from healthguard.local.postgres import Cluster, PostgresError


def newest_revision(versions: Path) -> str | None:
    """Return the revision after which no other comes; none where the files do not say so plainly."""
    revisions, earlier = set(), set()
    for file in versions.glob("*.py"):
        values = _assigned(ast.parse(file.read_bytes()))
        if "revision" in values:
            revisions.add(values["revision"])
            earlier.add(values.get("down_revision"))
    heads = revisions - earlier
    return heads.pop() if len(heads) == 1 else None


def _assigned(module: ast.Module) -> dict[str, str]:
    """Return the texts that a module assigns to plain names, with or without a type."""
    found = {}
    for statement in module.body:
        match statement:
            case ast.Assign(targets=[ast.Name(name)], value=ast.Constant(str(value))):
                found[name] = value
            case ast.AnnAssign(target=ast.Name(name), value=ast.Constant(str(value))):
                found[name] = value
    return found


def needs_migration(cluster: Cluster, database: str, versions: Path) -> bool:
    """Tell whether *database* is not at the newest revision in *versions*; in doubt it needs the migrations."""
    try:
        found = cluster.run_sql("SELECT version_num FROM alembic_version", database=database)
    except PostgresError:
        return True
    return found != newest_revision(versions)
