"""The catalogue of threats, the system file, and the derivation of the one from the other."""
