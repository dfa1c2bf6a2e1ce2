"""Scores and ideal observers: arrays in, figures out."""

from synapse_diffusion.metrics.classification import (
    Score,
    auc,
    classification_scores,
    confusion,
    from_confusion,
    permute_blocks,
    permute_units,
)
from synapse_diffusion.metrics.observers import NoiseModel, Observer
from synapse_diffusion.metrics.retrieval import (
    bootstrap_interval,
    by_concept,
    calibrate,
    csls,
    fuse,
    hits,
    log_softmax,
    paired_difference,
    ranks,
    retrieval_scores,
    sinkhorn,
)

__all__ = [
    "NoiseModel",
    "Observer",
    "Score",
    "auc",
    "bootstrap_interval",
    "by_concept",
    "calibrate",
    "classification_scores",
    "confusion",
    "csls",
    "from_confusion",
    "fuse",
    "hits",
    "log_softmax",
    "paired_difference",
    "permute_blocks",
    "permute_units",
    "ranks",
    "retrieval_scores",
    "sinkhorn",
]
