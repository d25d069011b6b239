"""Searching for networks and their training together."""
