"""The whole product on one machine: PostgreSQL, model server, auth, records and gateway under one supervisor."""
