"""Benchmarks whose scores are already known: tables, and the readers of published ones."""
