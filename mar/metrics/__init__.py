"""Scores of generated images: FID and its relatives, with the classifier that stands in for Inception on small data."""
