"""Group differences, with intervals."""
