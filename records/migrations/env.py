"""What Alembic runs: records' steps on records' database."""

from healthguard import migrations
from records.tables import RecordsTable

migrations.run("records", RecordsTable.metadata)
