"""Attacks on the rows that a model is trained on."""
