"""Searches in which weights and architecture learn together."""
