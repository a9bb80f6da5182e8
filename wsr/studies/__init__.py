"""Studies: a question to a population, answered by points, rows and a section of the report."""
