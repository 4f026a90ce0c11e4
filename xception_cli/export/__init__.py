"""A model leaves the house: one ONNX file that holds everything, if it says the same."""
