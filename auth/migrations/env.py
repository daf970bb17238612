"""What Alembic runs: auth's steps on auth's database."""

from auth.tables import AuthTable
from healthguard import migrations

migrations.run("auth", AuthTable.metadata)
