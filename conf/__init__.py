"""Hydra's configs: only what differs from the defaults of the classes, with its reason."""
