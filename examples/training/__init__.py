"""What the two training binaries share: settings, phases, checkpoints, workers, results."""
