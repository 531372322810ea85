"""Tokenizers: one file per algorithm, all a ``mar.tokenizers.base.Tokenizer``."""

from mar.core.options import Registry
from mar.tokenizers.base import Tokenizer
from mar.tokenizers.kl import KL
from mar.tokenizers.latents import Latents
from mar.tokenizers.levels import Channels, Pixels, Sequence
from mar.tokenizers.palette import Palette
from mar.tokenizers.patches import BinaryPatches, Patches
from mar.tokenizers.values import Values
from mar.tokenizers.vq import VQ

TOKENIZERS = Registry(
    {
        "pixels": Pixels,
        "binary-patches": BinaryPatches,
        "patches": Patches,
        "palette": Palette,
        "channels": Channels,
        "sequence": Sequence,
        "values": Values,
        "kl": KL,
        "vq": VQ,
        "latents": Latents,
    },
    what="tokenizer",
    base=Tokenizer,
    group="mar.tokenizers",
)
