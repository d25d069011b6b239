"""Carrying what one search learnt to another space, size or dataset."""
