"""What serves the models: TensorFlow Serving's API, the operator and the embedded model server."""
