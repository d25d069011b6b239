"""Training one network from scratch, its exports, and predictions by it."""
