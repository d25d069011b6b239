"""The jobs that a config can name, each a function of a config and a run directory."""
