"""Holdfast measures, quantifies and lowers the security risks of machine-learning models."""

__version__ = "0.1.0"
