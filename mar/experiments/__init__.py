"""Ablations: a grid of recipes, trained once each, measured alike, in one typed result."""
