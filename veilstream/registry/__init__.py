"""Adapters to schema registries."""
