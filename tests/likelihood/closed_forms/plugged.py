"""Models with exact conditionals plugged in, as a network that needs a pass per step and as a one-pass network.

B batch · L tokens · D width of embedded tokens · C condition width · M gathered tokens
"""

from __future__ import annotations

import torch

from mar.core.tokens import Categories
from mar.model.model import Model
from mar.networks.base import ABSENT, Network
from mar.verification.models import BareTokens
from tests.likelihood.closed_forms.discrete import IsingModel, MarkovChain
from tests.likelihood.closed_forms.gaussian import GridGaussian, SharedMixture
from tests.likelihood.closed_forms.joint import Joint

JOINTS: dict[str, Joint] = {
    "gaussian": GridGaussian(),
    "markov": MarkovChain(),
    "ising": IsingModel(),
    "mixture": SharedMixture(),
}


class OnePass(Network):
    """z is the parameters of p(x_l | tokens of strictly earlier steps), whatever the steps are."""

    one_pass = True

    def __init__(self, joint: Joint) -> None:
        super().__init__()
        self.joint, self.condition_width, self.context_width = joint, 1, joint.width
        self.token_width = joint.token.vocabulary if isinstance(joint.token, Categories) else joint.token.width

    def forward(
        self, token_BLD: torch.Tensor, step_BL: torch.Tensor, condition_BC: torch.Tensor, target_BL: torch.Tensor
    ) -> torch.Tensor:
        row_M, index_M = target_BL.nonzero(as_tuple=True)
        known_ML = step_BL[row_M] < self.now(step_BL, target_BL)[row_M, index_M][:, None]
        token = token_BLD.argmax(-1) if isinstance(self.joint.token, Categories) else token_BLD
        return self.joint.conditionals(token[row_M], known_ML, index_M)

    def now(self, step_BL: torch.Tensor, target_BL: torch.Tensor) -> torch.Tensor:
        """(B, L): the step at which each target is asked for."""
        return step_BL


class PassPerStep(OnePass):
    """The same for one known set a row: the tokens of steps below the smallest among the row's targets."""

    one_pass = False
    order_invariant = True

    def now(self, step_BL: torch.Tensor, target_BL: torch.Tensor) -> torch.Tensor:
        first_B1 = torch.where(target_BL, step_BL, ABSENT).amin(1, keepdim=True)
        return first_B1.expand_as(step_BL)


NETWORKS = {"one pass": OnePass, "a pass per step": PassPerStep}


def plugged(joint: Joint, network: type[OnePass]) -> Model:
    """A model in float64 whose embedding is the token itself (one-hot if a category)."""
    model = Model(BareTokens(joint.shape, joint.token), network(joint), joint.head())
    embed = model.embedding.embed
    with torch.no_grad():
        embed.weight.copy_(torch.eye(model.network.token_width))  # pyright: ignore
        if isinstance(embed, torch.nn.Linear):
            embed.bias.zero_()
    return model.double().eval()
