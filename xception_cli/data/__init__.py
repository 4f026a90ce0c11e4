"""Folders, splits, pictures and loaders."""
