"""Sampling: generate along a plan, with guidance, given tokens and adaptive orders."""
