"""The options of every job as frozen dataclasses, each option one line of documentation and a default."""
