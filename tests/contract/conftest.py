"""Real databases for contract tests."""

from tests.databases import auth_dsn, postgres, records_dsn

__all__ = ["auth_dsn", "postgres", "records_dsn"]
