"""A trained network in forms that need neither this package nor a search; all take pixels and give probabilities."""
