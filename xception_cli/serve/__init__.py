"""A model on a local web page, to show it to a person. Not for production."""
