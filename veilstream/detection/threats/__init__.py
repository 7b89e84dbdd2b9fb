"""Threat heuristics: rules as data (`rules.yaml`, the place to add one), read by `rules.py`, applied by `scan.py`."""
