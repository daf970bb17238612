"""What every HealthGuard service is: settings, problems, logs, telemetry, tokens, health; and the command."""

__version__ = "0.1.0"
