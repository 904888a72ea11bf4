"""Attacks that learn about the people behind a model: membership, attributes, and the gate that keeps them honest."""
