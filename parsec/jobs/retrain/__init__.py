"""Proof by training: the cells of finished searches beside random cells and a plain network."""
