"""The operator: from one ServedModel to verified, running model pods."""
