"""The public door: HTTP in, gRPC to the models out. It holds no patient data; records does."""
