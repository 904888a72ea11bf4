"""Examples that run on real data and are tested."""
