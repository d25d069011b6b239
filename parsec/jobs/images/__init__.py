"""From images to a trained network within a time: search, proof and trainings."""
