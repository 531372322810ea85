"""Speed: training, sampling and likelihood, memory and operations, beside the published code if there is a checkout."""
