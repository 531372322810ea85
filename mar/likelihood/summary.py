"""From the conditionals of images along plans to one figure with its standard error, its curve and its map.

N images · L tokens · K AR steps · E token channels
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import torch

from mar.core.errors import UserError
from mar.core.tokens import Categories, Vectors
from mar.tokenizers.base import Tokenizer
from orderings import GIVEN

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass(frozen=True)
class EnsemblePoint:
    """The exact NLL of the equal mixture of ``orders``, the same for all images: mean of -log mean_s p(data | order s).

    Errors are over images, for these orders; ``standard_error_orders_nats`` over the choice of the orders, for these
    images (jackknife). Latents have no bits_per_dim.
    """

    orders: int
    nats_per_image: float
    standard_error_nats: float
    standard_error_orders_nats: float
    bits_per_dim: float | None
    standard_error_bits_per_dim: float | None


@dataclass(frozen=True)
class Controlled:
    """The mean NLL of some images corrected by regression on statistics of all ``n_all`` (``mar.likelihood.control``).

    The standard error is over images, and over orders where these are shared.
    """

    n_all: int
    nats_per_image: float
    standard_error_nats: float
    bits_per_dim: float | None
    standard_error_bits_per_dim: float | None


@dataclass(frozen=True, repr=False)
class Likelihood:
    """The negative log-likelihood of N images along a plan, over L grid positions and K AR steps."""

    #: short text, e.g. "spiral/cosine:16"
    plan: str
    #: "exact"; "bound": at least the NLL, in expectation; "ode"; "estimate": unbiased for ``head_kind``
    kind: str
    n_images: int
    #: mean of -log p(data | plan): for integer data with continuous tokens, of the dequantised bound
    nats_per_image: float
    #: of that mean, over images, their orders where the order is random, and the steps drawn
    standard_error_nats: float
    #: nats_per_image over log 2 times the data's dimensions; None for latents and colours of a palette. Of documents:
    #: the nats of all over the tokens of all, their ends among them
    bits_per_dim: float | None
    standard_error_bits_per_dim: float | None
    #: the largest number of AR steps
    steps: int
    #: evaluations of the head per token
    evaluations: int
    #: rows of the network's forward pass for one image
    forward_rows_per_image: float
    #: what to know before quoting the figure
    warnings: tuple[str, ...]
    #: (K,) mean nats of each step: the curve of conditional entropies along the order. Of vector tokens, without the
    #: Jacobian that nats_per_image includes. Of an estimate: over the images that drew the step; nan where none did
    nats_per_step: tuple[float, ...]
    #: (K,) mean tokens of each step
    tokens_per_step: tuple[float, ...]
    #: (L,) mean nats of each grid position, row-major, as nats_per_step
    nats_per_position: tuple[float, ...]
    #: (N,) for paired comparisons, in the order in which the images were scored
    nats_of_image: tuple[float, ...]
    standard_error_per_step: tuple[float, ...] = ()
    standard_error_per_position: tuple[float, ...] = ()
    #: the kind of the head's log-probabilities: "exact", "bound" or "ode"
    head_kind: str = ""
    #: they depend on drawn noise and only their expectation is of that kind
    head_estimate: bool = False
    #: "exact" (every step) or how the steps were drawn, e.g. "steps:8"
    estimator: str = "exact"
    #: the head's options for scoring (timesteps, solver, tolerance, …), where it has any
    settings: dict[str, Any] = field(default_factory=dict)
    #: orders shared by all images whose mean this is; 0: every image has its own
    orders: int = 0
    #: dequantisations of each image, combined by log-mean-exp; 0: nothing is dequantised
    dequantisation_draws: int = 0
    #: the mixture of the first 1, 2, 4, … of ``orders``
    ensemble: tuple[EnsemblePoint, ...] = ()
    #: nats_per_image over tokens times channels, where there are no bits_per_dim
    nats_per_latent_dimension: float | None = None
    standard_error_nats_per_latent_dimension: float | None = None
    #: nats_per_image corrected by control variates, where they were asked for
    controlled: Controlled | None = None

    def __repr__(self) -> str:
        nats = f"{self.nats_per_image:.2f} ± {self.standard_error_nats:.2f} nats/image"
        bits = "" if self.bits_per_dim is None else f" = {self.bits_per_dim:.4f} bits/dim"
        return f"Likelihood({self.plan}, {self.kind}, {self.n_images} images: {nats}{bits})"

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def to_frame(self, by: Literal["figure", "image", "step", "position"] = "figure") -> DataFrame:
        """A pandas frame with units in the names of its columns: one row, or one for each image, step or position.

        Raises:
            UserError: pandas is not installed.
        """
        if by == "figure":
            single = {k: v for k, v in vars(self).items() if v is None or isinstance(v, (str, int, float))}
            return data_frame({k: [v] for k, v in single.items()})
        columns = {
            "image": {"nats_per_image": self.nats_of_image},
            "step": {
                "tokens_per_image": self.tokens_per_step, "nats_per_image": self.nats_per_step,
                "standard_error_nats": self.standard_error_per_step,
            },
            "position": {
                "nats_per_image": self.nats_per_position, "standard_error_nats": self.standard_error_per_position,
            },
        }[by]  # fmt: skip
        return data_frame({"plan": self.plan, by: range(len(columns["nats_per_image"])), **columns})


def data_frame(columns: Any) -> DataFrame:
    """A pandas frame of columns, or of rows. Raises UserError: pandas is not installed."""
    try:
        import pandas
    except ImportError:
        raise UserError("frames are those of pandas: pip install 'mar-orderings[frames]'") from None
    return pandas.DataFrame(columns)


@dataclass(frozen=True)
class Conditionals:
    """Every conditional of N images, or those of the steps drawn."""

    step_NL: torch.Tensor  # int64, the AR step of each token (GIVEN, 0.., ABSENT)
    nats_NL: torch.Tensor  # -log p(x_l | x_{S_<k}); 0 where a token is given, absent or not drawn
    kind: str  # of the head's log-probabilities
    evaluations: int  # of the head per token, the most for any
    forward_rows: int  # rows that went through the network, for all images together
    head_estimate: bool = False  # the head's log-probabilities depend on drawn noise
    settings: dict[str, Any] = field(default_factory=dict)  # the head's options for them
    # 1 over the probability that the token's step was drawn, 0 where it was not; None: all were computed. Rows are
    # drawn independently, so the spread of the rows' sums includes the variance over steps.
    weight_NL: torch.Tensor | None = None
    estimator: str = "exact"  # what drew the steps


def summarise(tokenizer: Tokenizer, plan: str, found: Conditionals, warnings: tuple[str, ...] = ()) -> Likelihood:
    """The likelihood of N images, whatever chose their plans, as long as each plan's product is a density.

    Args:
        tokenizer: says what a token's nats are worth in bits/dim.
        plan: the plans' short text.
        warnings: what to know before quoting the figure.
    """
    step_NL, nats_NL, n = found.step_NL.cpu(), found.nats_NL.cpu().double(), len(found.nats_NL)
    weight_NL = torch.ones_like(nats_NL) if found.weight_NL is None else found.weight_NL.cpu().double()
    scored_NL = (step_NL >= 0) & (step_NL < step_NL.shape[1])
    share_N = scored_NL.double().mean(1)  # of the tokens, and so of the Jacobian
    nats_N = (weight_NL * nats_NL).sum(1) - tokenizer.log_jacobian * share_N
    mean, error = float(nats_N.mean()), error_over_images(nats_N)
    n_steps = int(step_NL[scored_NL].max()) + 1
    curve_K, curve_error_K = weighted_mean(*per_step(step_NL, nats_NL, weight_NL, n_steps))
    map_L, map_error_L = weighted_mean(nats_NL, torch.where(scored_NL, weight_NL, 1.0))
    whole = tokenizer.end is None and not bool((step_NL == GIVEN).any())  # every example has all tokens scored
    return Likelihood(
        plan=plan,
        kind=found.kind if found.estimator == "exact" else "estimate",
        n_images=n,
        nats_per_image=mean,
        standard_error_nats=error,
        **(per_dimension(tokenizer, mean, error) if whole else per_token(nats_N, scored_NL.sum(1))),
        steps=n_steps,
        evaluations=found.evaluations,
        forward_rows_per_image=found.forward_rows / n,
        warnings=warnings,
        nats_per_step=tuple(curve_K.tolist()),
        tokens_per_step=tuple((step_NL[scored_NL].bincount(minlength=n_steps) / n).tolist()),
        nats_per_position=tuple(map_L.tolist()),
        nats_of_image=tuple(nats_N.tolist()),
        standard_error_per_step=tuple(curve_error_K.tolist()),
        standard_error_per_position=tuple(map_error_L.tolist()),
        head_kind=found.kind,
        head_estimate=found.head_estimate,
        estimator=found.estimator,
        settings=found.settings,
        dequantisation_draws=int(is_dequantised(tokenizer)),
    )


def error_over_images(nats_N: torch.Tensor) -> float:
    """The standard error of the mean; of one image: nan."""
    return float(nats_N.std() / math.sqrt(len(nats_N))) if len(nats_N) > 1 else math.nan


def is_dequantised(tokenizer: Tokenizer) -> bool:
    """Whether integer data become continuous tokens, so that their likelihood is a bound over added uniform noise."""
    return not isinstance(tokenizer.token, Categories) and tokenizer.dimensions > 0 and not tokenizer.real


def per_dimension(tokenizer: Tokenizer, nats: float, error: float, length: float | None = None) -> dict[str, Any]:
    """The fields that divide nats per image by dimensions: of the data, or of latents, never both.

    ``length``: mean scored tokens, one dimension each, of examples that end by themselves or are scored in part.
    """
    dimensions = length if length is not None else tokenizer.dimensions if tokenizer.end is None else None
    bits = math.log(2.0) * dimensions if dimensions else None
    latent = None
    if not tokenizer.dimensions:
        width = tokenizer.token.width if isinstance(tokenizer.token, Vectors) else 1
        latent = math.prod(tokenizer.shape) * width
    return {
        "bits_per_dim": nats / bits if bits else None,
        "standard_error_bits_per_dim": error / bits if bits else None,
        "nats_per_latent_dimension": nats / latent if latent else None,
        "standard_error_nats_per_latent_dimension": error / latent if latent else None,
    }


def length_of(tokenizer: Tokenizer, scored: Likelihood) -> float | None:
    """Mean scored tokens where they are not all tokens of every example; None where they are."""
    length = sum(scored.tokens_per_step)
    whole = tokenizer.end is None and length > math.prod(tokenizer.shape) - 1e-6  # summed means
    return None if whole else length


def per_token(nats_N: torch.Tensor, length_N: torch.Tensor) -> dict[str, Any]:
    """The fields of ``per_dimension`` for examples of their own lengths: the nats of all over the tokens of all."""
    (mean,), (error,) = weighted_mean((nats_N / length_N)[:, None], length_N[:, None].double())
    return {"bits_per_dim": float(mean) / math.log(2.0), "standard_error_bits_per_dim": float(error) / math.log(2.0)}


def per_step(
    step_NL: torch.Tensor, nats_NL: torch.Tensor, weight_NL: torch.Tensor, n_steps: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """(nats_NK, weight_NK): sums over each step's tokens, and the weight of the step (1 after a row's last)."""
    scored_NL = (step_NL >= 0) & (step_NL < step_NL.shape[1])
    index_NL = torch.where(scored_NL, step_NL, n_steps)  # one column more, for what is not scored
    shape = (len(step_NL), n_steps + 1)
    nats_NK = torch.zeros(shape, dtype=nats_NL.dtype).scatter_add_(1, index_NL, nats_NL)
    weight_NK = torch.ones(shape, dtype=nats_NL.dtype).scatter_(1, index_NL, weight_NL)
    return nats_NK[:, :n_steps], weight_NK[:, :n_steps]


def weighted_mean(value_NK: torch.Tensor, weight_NK: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Each column's mean over rows and its standard error, weighted by 1 / (probability of being drawn).

    The error is that of a ratio (Cochran 1977, eq. 2.39); with weights of 1 it is std / sqrt(N).
    """
    total_K = weight_NK.sum(0)
    mean_K = (weight_NK * value_NK).sum(0) / total_K
    n_K = (weight_NK > 0).sum(0)
    squares_K = (weight_NK * (value_NK - mean_K)).square().sum(0) * n_K / (n_K - 1)
    return mean_K, squares_K.sqrt() / total_K
