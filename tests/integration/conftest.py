"""Real databases for integration tests."""

from tests.databases import auth_connection, auth_dsn, postgres, records_dsn

__all__ = ["auth_connection", "auth_dsn", "postgres", "records_dsn"]
