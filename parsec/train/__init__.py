"""Training networks from scratch: one cell, many at once, or with inherited weights."""
