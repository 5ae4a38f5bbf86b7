"""compare: strategies x budgets x seeds, and what they show."""
