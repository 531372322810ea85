"""Networks: what is known -> one context vector for each wanted token. One file per algorithm."""

from mar.core.options import Registry
from mar.networks.arpg import ARPG
from mar.networks.base import Network
from mar.networks.baselines import Independent, LinearAR, PerPosition
from mar.networks.causal_transformer import CausalTransformer
from mar.networks.halton_maskgit import HaltonMaskGIT
from mar.networks.lpd import LPD
from mar.networks.made import Made
from mar.networks.masked_convolution import MaskedConvolution
from mar.networks.masked_transformer import MaskedTransformer
from mar.networks.nade import Nade
from mar.networks.pixel_rnn import DiagonalBiLSTM, RowLSTM
from mar.networks.randar import RandAR
from mar.networks.rar import RAR
from mar.networks.recurrent import GRU, LSTM
from mar.networks.wavenet import WaveNet

NETWORKS = Registry(
    {
        "arpg": ARPG,
        "causal-transformer": CausalTransformer,
        "diagonal-bilstm": DiagonalBiLSTM,
        "gru": GRU,
        "halton-maskgit": HaltonMaskGIT,
        "independent": Independent,
        "linear-ar": LinearAR,
        "lpd": LPD,
        "lstm": LSTM,
        "made": Made,
        "masked-convolution": MaskedConvolution,
        "masked-transformer": MaskedTransformer,
        "nade": Nade,
        "per-position": PerPosition,
        "randar": RandAR,
        "rar": RAR,
        "row-lstm": RowLSTM,
        "wavenet": WaveNet,
    },
    what="network",
    base=Network,
    group="mar.networks",
)
