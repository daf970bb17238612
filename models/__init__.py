"""Define, train, calibrate and export the models that HealthGuard serves."""
