"""Comparisons of strategies, budgets and seeds: the plan, the figures and the costs."""
