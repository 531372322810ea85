"""Metrics of trained models. A new metric is a file of this folder and a line of ``METRICS``."""

from __future__ import annotations

from mar.metrics.base import Metric
from mar.metrics.consistency import OrderConsistency
from mar.metrics.exposure import ExposureBias
from mar.metrics.fid import FID
from mar.metrics.nll import NLL
from mar.metrics.probe import LinearProbe
from mar.metrics.sets import Sets
from mar.metrics.speed import TrainingSpeed

# In the order in which a grid asks them: plans in measured sets wait for the costs of sets.
METRICS: dict[str, type[Metric]] = {
    "sets": Sets,
    "nll": NLL,
    "fid": FID,
    "exposure": ExposureBias,
    "consistency": OrderConsistency,
    "probe": LinearProbe,
    "speed": TrainingSpeed,
}
