"""Folders, splits, images and loaders."""
