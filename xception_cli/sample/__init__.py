"""The sample data set: twelve foods, rendered and not photographed."""
