"""Data checks."""
