"""Run the auth service: `python -m auth`, settings from the environment (AUTH_…)."""

from auth.app import create_app
from auth.settings import AuthSettings
from healthguard.logging import configure_logging
from healthguard.serve import serve
from healthguard.telemetry import configure_tracing


def main() -> None:
    """Read the settings, then serve until told to stop."""
    settings = AuthSettings()
    configure_logging("auth", settings.log_level, settings.log_format)
    configure_tracing("auth", settings.otlp_endpoint)
    serve(create_app(settings), settings)


if __name__ == "__main__":
    main()
