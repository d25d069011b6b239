"""What is made of results: curves, tables, pages, verdicts."""
