"""Strategies by one contract: ask, and be told."""
