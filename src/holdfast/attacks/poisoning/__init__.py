"""Attacks through training rows."""
