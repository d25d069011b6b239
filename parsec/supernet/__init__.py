"""One network that holds the weights of all children; any child is one compiled program."""
