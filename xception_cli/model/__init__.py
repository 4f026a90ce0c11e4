"""The network, its weights, its file and its features."""
