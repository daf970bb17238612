"""The records service for its integration tests."""

from tests.integration.records.fixtures import client, database, empty_tables, issuer, settings

__all__ = ["client", "database", "empty_tables", "issuer", "settings"]
