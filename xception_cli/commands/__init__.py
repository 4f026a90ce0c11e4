"""What each command does; cli.py puts them together. Nothing here loads torch at import."""
