"""Ablations: one model, many plans, one typed result."""
