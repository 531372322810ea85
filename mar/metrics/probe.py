"""A linear probe: how well the class can be read from a model's features.

N images · L tokens · D context width · K sets

The features of an image are its contexts along an order, averaged over the tokens (Chen et al. 2020, "Generative
pretraining from pixels", Sec. 3.3, average-pool a layer's outputs alike; theirs is a middle layer, a context is the
last one), with no class told. A network that returns every conditional at once is asked one token at a time; one that
needs a pass for each step is asked in a few equal sets. The classifier is logistic regression on standardised features,
fitted on the training split and scored on the test split.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from pydantic import Field

from mar.config import Recipe, Section
from mar.core.errors import UserError
from mar.core.noise import stream
from mar.core.table import Column, fields
from mar.data.base import Data, Split
from mar.likelihood.chain import pairs
from mar.metrics.base import Baseline, Metric, Question, Subject, Workspace
from mar.model.model import Model
from orderings import Ordering, Plan, parse_partition

Labelled = tuple[np.ndarray, np.ndarray]  # features (N, D), classes (N,)

_BATCH = 128


@dataclass(frozen=True)
class Probe:
    """The linear classifier of a model's features."""

    accuracy: float  # share of the test split that is classified correctly
    standard_error: float  # of the accuracy, over images
    width: int  # of the features
    n_train: int
    n_test: int
    sets: int  # that the order was cut into; 0: no order


class LinearProbe(Metric):
    """A linear classifier of each model's features along its own ordering."""

    class Options(Section):
        sets: int = Field(default=8, ge=1, description="passes of a network that needs one for each step")
        strength: float = Field(default=1.0, gt=0, description="inverse of the L2 penalty")
        seed: int = Field(default=0, ge=0, description="of random orders")

    name, title, Answer = "probe", "probe", Probe
    options: Options

    def question(self, subject: Subject) -> Question:
        content = {"plan": None, "weights": subject.weights, **self.options.model_dump(mode="json")}
        return Question(self.name, content=content)

    def compute(self, question: Question, at: Workspace) -> Probe:
        run, o = at.load(), self.options
        return linear_probe(run.model, run.data, run.parts.ordering, o.sets, o.strength, o.seed)

    @classmethod
    def columns(cls, answers: Sequence[Probe]) -> Sequence[Column[Probe]]:
        def text(answer: Probe) -> str:
            return f"{answer.accuracy:.3f} ({answer.width} features)"

        return [Column("linear probe", lambda answer: answer.accuracy, "higher", text=text, drop=1)]

    @classmethod
    def data_columns(cls) -> Sequence[Column[Probe]]:
        return fields(probe_accuracy="accuracy", probe_standard_error="standard_error", probe_features="width")

    @classmethod
    def notes(cls, answers: Sequence[Probe], grid: Mapping[str, Any]) -> list[str]:
        return [
            f"Linear probe: accuracy on {answers[0].n_test} test images of logistic regression on the contexts "
            "averaged over the tokens of an image (the number of features is the context width), fitted on "
            f"{answers[0].n_train} training images; no class is told."
        ]

    def baselines(self, recipe: Recipe, data: Data) -> Iterator[Baseline]:
        """Yield the probe of the examples themselves: better features say more than the values they are made from."""
        if data.spec.n_classes:
            train, test = (_labelled(split, lambda x, _: x.flatten(1).float()) for split in (data.train, data.test))
            yield Baseline("pixels", "the pixels themselves", "", fit(train, test, self.options.strength, sets=0))


def linear_probe(
    model: Model, data: Data, ordering: Ordering, sets: int = 8, strength: float = 1.0, seed: int = 0
) -> Probe:
    """Fit on the training split, score on the test split.

    Args:
        sets: how many equal sets the order is cut into, for a network that is not one-pass.
        strength: inverse of the L2 penalty (scikit-learn's C).

    Raises:
        UserError: the data has no classes.
    """
    if data.spec.n_classes < 2:
        raise UserError(f"a linear probe reads classes from features, and data set {data.name!r} has none")
    grid, device = model.tokenizer.lattice, next(model.parameters()).device
    sets = len(grid) if model.network.one_pass else min(sets, len(grid))
    partition = parse_partition(f"equal:{math.ceil(len(grid) / sets)}")  # named by the tokens of a set
    found = []
    for name, split in (("train", data.train), ("test", data.test)):

        def of_batch(x: torch.Tensor, index: torch.Tensor, name: str = name) -> torch.Tensor:
            plan = Plan.sample(ordering, partition, grid, len(x), stream(seed, f"probe/{name}", index))
            return features(model, x.to(device), plan).cpu()

        found.append(_labelled(split, of_batch))
    train, test = found
    return fit(train, test, strength, sets)


def fit(train: Labelled, test: Labelled, strength: float, sets: int) -> Probe:
    """Fit logistic regression on standardised features (N, D) with their classes (N,), and score it."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    classifier = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=2000)).fit(*train)
    accuracy, n = float(classifier.score(*test)), len(test[1])
    error = math.sqrt(accuracy * (1.0 - accuracy) / n)
    return Probe(accuracy, error, train[0].shape[1], len(train[1]), n, sets)


@torch.no_grad()
def features(model: Model, x: torch.Tensor, plan: Plan) -> torch.Tensor:
    """Return feature_ND of examples: the mean of their contexts, class unknown."""
    token, plan = model.tokenizer.encode(x), plan.to(x.device)
    total_ND = torch.zeros(len(x), model.network.context_width, device=x.device)
    for some in pairs(model, token, plan, torch.full((len(x),), -1, device=x.device)):
        total_ND.index_add_(0, some.at_M[0], some.z_MD.float())
    return total_ND / plan.scored_BL.sum(1, keepdim=True)


def _labelled(split: Split, features_of: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> Labelled:
    """Return features and labels of a whole split; ``features_of`` takes examples and their numbers."""
    found, labels = [], []
    for index in torch.arange(len(split)).split(_BATCH):
        x, label_B = split.batch(index)
        assert label_B is not None  # the data has classes
        found.append(features_of(x, index))
        labels.append(label_B)
    return torch.cat(found).numpy(), torch.cat(labels).numpy()
