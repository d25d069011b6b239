"""Networks and how they are trained, searched together: the joint space of the bag of baselines, and BULK&CUT on it."""
