"""Attacks that copy a model through its answers."""
