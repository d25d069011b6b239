"""What every run does, whatever its job: directory, loop, journal, checkpoints, signals, workers, processes."""
