"""ONNX: a model as one file that holds everything, kept only if it answers the same."""
