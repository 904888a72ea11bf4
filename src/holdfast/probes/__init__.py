"""One module per measured threat."""
