"""What a model is worth: metrics and the files that show them."""
