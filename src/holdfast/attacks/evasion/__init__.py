"""Evasion attacks: one attack, one file."""
