"""Whether a database needs its migrations, and the SQL that makes it."""

from pathlib import Path

import pytest

from healthguard.local import schema
from healthguard.local.postgres import database_sql
from healthguard.local.stack import ROOT


def test_newest_revision_is_the_one_that_nothing_follows(tmp_path: Path) -> None:
    """A chain has one end; two ends, or none, are not plain."""
    (tmp_path / "a.py").write_text('revision = "1"\ndown_revision = None\n')
    assert schema.newest_revision(tmp_path) == "1"
    (tmp_path / "b.py").write_text('revision: str = "2"\ndown_revision: str = "1"\n')
    assert schema.newest_revision(tmp_path) == "2"
    (tmp_path / "c.py").write_text('revision = "3"\ndown_revision = "1"\n')
    assert schema.newest_revision(tmp_path) is None


@pytest.mark.parametrize("service", ["auth", "records"])
def test_newest_revision_reads_the_services_migrations(service: str) -> None:
    """Where this gave none, every start would run the migrations: slow, and unnoticed."""
    assert schema.newest_revision(ROOT / service / "migrations" / "versions") is not None


@pytest.mark.parametrize(
    ("name", "password"), [("auth; DROP", "a" * 20), ("Auth", "a" * 20), ("auth", "short"), ("auth", "a" * 20 + "'")]
)
def test_database_sql_refuses_what_would_need_quoting(name: str, password: str) -> None:
    """Names and passwords stand in SQL as they are, so they are checked first."""
    with pytest.raises(ValueError, match="plain name"):
        database_sql(name, password)
