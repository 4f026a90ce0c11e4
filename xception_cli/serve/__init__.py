"""A model on a local web page, for demonstrations. Not for production."""
