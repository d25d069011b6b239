"""The command line: configs by name, settings by flags, and the job that they start."""
