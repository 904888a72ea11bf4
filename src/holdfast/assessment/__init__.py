"""The assessment: planned, run, gated and compared."""
