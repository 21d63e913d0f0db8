"""Turn a trained Keras model into a servable ONNX graph, and prove that it is the same model."""
