"""Jobs on tables: comparing strategies, searching fronts, and building a table."""
