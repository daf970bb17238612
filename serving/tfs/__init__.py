"""TensorFlow Serving's API for Python without TensorFlow: messages (`protos`), tensors, signatures and a client."""
