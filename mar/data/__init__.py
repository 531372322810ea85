"""Data sets: one file per kind, all giving a ``mar.data.base.Data``."""

from mar.core.options import Registry
from mar.data.audio import Audio
from mar.data.base import DataSource
from mar.data.cache import Cache
from mar.data.cifar import Cifar10, Cifar100
from mar.data.digits import Digits
from mar.data.documents import Documents, Lm1b
from mar.data.folder import Folder
from mar.data.hub import Hub
from mar.data.mat import Omniglot, Silhouettes
from mar.data.memory import Memory
from mar.data.mnist import BinarizedMnist, DynamicMnist, FashionMnist, Mnist
from mar.data.moving_digits import MovingDigits
from mar.data.npz import Npz
from mar.data.published_latents import MarLatents, RarTokens
from mar.data.small_imagenet import Chrabaszcz, Oord
from mar.data.sound_folder import SoundFolder
from mar.data.text import Text
from mar.data.video import Video

DATA = Registry(
    {
        "digits": Digits,
        "mnist": Mnist,
        "fashion-mnist": FashionMnist,
        "binarized-mnist": BinarizedMnist,
        "dynamic-mnist": DynamicMnist,
        "omniglot": Omniglot,
        "caltech-silhouettes": Silhouettes,
        "cifar10": Cifar10,
        "cifar100": Cifar100,
        "imagenet-oord": Oord,
        "imagenet-chrabaszcz": Chrabaszcz,
        "folder": Folder,
        "video": Video,
        "moving-digits": MovingDigits,
        "text": Text,
        "documents": Documents,
        "lm1b": Lm1b,
        "npz": Npz,
        "audio": Audio,
        "sound-folder": SoundFolder,
        "hub": Hub,
        "cache": Cache,
        "mar-latents": MarLatents,
        "rar-tokens": RarTokens,
        "memory": Memory,
    },
    what="data",
    base=DataSource,
    group="mar.data",
)
