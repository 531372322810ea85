"""Heads: one context vector -> one distribution over one token. One algorithm a file; ``base.py`` has the contract."""

from mar.core.options import Registry
from mar.heads.base import Head
from mar.heads.categorical import CategoricalHead
from mar.heads.diffusion import DiffusionHead
from mar.heads.flow import FlowHead
from mar.heads.gaussian_mixture import GaussianMixtureHead
from mar.heads.logistic_mixture import LogisticMixtureHead

HEADS = Registry(
    {
        "categorical": CategoricalHead,
        "diffusion": DiffusionHead,
        "flow": FlowHead,
        "gaussian-mixture": GaussianMixtureHead,
        "logistic-mixture": LogisticMixtureHead,
    },
    what="head",
    base=Head,
    group="mar.heads",
)
