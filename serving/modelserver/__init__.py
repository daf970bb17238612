"""TensorFlow Serving's API without TensorFlow: version folders in, gRPC out, on LiteRT."""
