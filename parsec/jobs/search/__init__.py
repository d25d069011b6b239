"""The main job, a search on images: its problem, evaluators, strategies, last comparison and proof."""
