"""The data check: what is wrong with a folder of photos, before it is trained on."""
