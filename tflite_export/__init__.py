"""Export of kerasbits models to files that run."""
