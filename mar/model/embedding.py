"""From tokens to the vectors that networks read.

L tokens · D width · V vocabulary
"""

from __future__ import annotations

import math
from collections import OrderedDict

import torch
from torch import nn

from mar.core.tokens import Categories, TokenKind


class TokenEmbedding(nn.Sequential):
    """Embeds categories by a table and vectors by a linear map.

    The table starts small and random or, with ``codes``, as ``cosine_token_init``.
    """

    def __init__(self, token: TokenKind, width: int, codes: bool = False) -> None:
        if isinstance(token, Categories):
            embed = nn.Embedding(token.vocabulary, width)
            nn.init.normal_(embed.weight, std=0.02)
            if codes:
                embed.weight.data.copy_(cosine_token_init(token.vocabulary, width))
        else:
            embed = nn.Linear(token.width, width)
            nn.init.xavier_uniform_(embed.weight)
            nn.init.zeros_(embed.bias)
        super().__init__(OrderedDict(embed=embed))


def cosine_token_init(vocabulary: int, width: int) -> torch.Tensor:
    """(V, D): -√2 cos(π j (v + ½) / V), j = 1..D, the cosine transform's basis over the levels.

    Two categories are -1 and 1 with D = 1. Up to V − 1 columns are orthogonal, of mean 0 and variance 1, the first of
    them increasing, so that levels of grey start in their order.
    """
    level_V, column_D = torch.arange(vocabulary) + 0.5, torch.arange(1, width + 1)
    return -math.sqrt(2) * torch.cos(math.pi / vocabulary * level_V[:, None] * column_D)
