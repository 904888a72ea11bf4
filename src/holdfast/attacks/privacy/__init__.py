"""Attacks on what a model gives away about its training rows."""
