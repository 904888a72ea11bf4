"""Benchmarks: what Holdfast claims about itself, measured beside its peers."""
