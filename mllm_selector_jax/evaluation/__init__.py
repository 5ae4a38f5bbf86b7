"""Evaluation: questions with known answers, metrics, totals and intervals."""
