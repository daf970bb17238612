"""Run the records service: `python -m records`, settings from the environment (RECORDS_…)."""

from healthguard.logging import configure_logging
from healthguard.serve import serve
from healthguard.telemetry import configure_tracing
from records.app import create_app
from records.settings import RecordsSettings


def main() -> None:
    """Read the settings, then serve until told to stop."""
    settings = RecordsSettings()
    configure_logging("records", settings.log_level, settings.log_format)
    configure_tracing("records", settings.otlp_endpoint)
    serve(create_app(settings), settings)


if __name__ == "__main__":
    main()
