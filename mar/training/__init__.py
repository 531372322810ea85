"""Training: draw a plan, draw a step, score the targets."""
