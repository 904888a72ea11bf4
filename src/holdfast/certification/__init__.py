"""Certification: radii within which no change of the input can change a decision."""
