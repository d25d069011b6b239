"""One file for each job: `get_config(variant)` returns its settings; the docstring says what to expect of it."""
