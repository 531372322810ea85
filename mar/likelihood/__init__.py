"""Likelihood: exact chains along plans. Always guidance 1, temperature 1, no truncation."""
