"""The HTTP paths of the gateway, a file per subject."""
