"""The records service for the tests of what it promises."""

from tests.databases import postgres, records_dsn
from tests.integration.records.fixtures import client, database, empty_tables, issuer, settings

__all__ = ["client", "database", "empty_tables", "issuer", "postgres", "records_dsn", "settings"]
