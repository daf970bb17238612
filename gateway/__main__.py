"""Run the gateway: `python -m gateway`, settings from the environment (GATEWAY_…)."""

from gateway.app import create_app
from gateway.settings import GatewaySettings
from healthguard.logging import configure_logging
from healthguard.serve import serve
from healthguard.telemetry import configure_tracing


def main() -> None:
    """Read the settings, then serve until told to stop."""
    settings = GatewaySettings()
    configure_logging("gateway", settings.log_level, settings.log_format)
    configure_tracing("gateway", settings.otlp_endpoint)
    serve(create_app(settings), settings)


if __name__ == "__main__":
    main()
