"""First and second moments of a training split, for tokens of about unit variance.

N rows · E channels
"""

from __future__ import annotations

from collections.abc import Iterable

import torch

from mar.errors import UserError


def moments(batches: Iterable[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """(mean_E, mean square_E) in float64 over the rows of all batches (N, E).

    Raises:
        UserError: there are no rows.
    """
    count, total_E, square_E = 0, torch.zeros(()), torch.zeros(())
    for y_NE in batches:
        y_NE = y_NE.double()
        count, total_E, square_E = count + len(y_NE), total_E + y_NE.sum(0), square_E + y_NE.square().sum(0)
    if count == 0:
        raise UserError("no training data to measure the scale of the tokens from")
    return total_E / count, square_E / count
