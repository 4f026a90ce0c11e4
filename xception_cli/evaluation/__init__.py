"""The evaluation of a model: metrics and the files that show them."""
