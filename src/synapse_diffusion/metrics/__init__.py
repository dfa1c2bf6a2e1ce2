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

__all__ = [
    "NoiseModel",
    "Observer",
    "Score",
    "auc",
    "classification_scores",
    "confusion",
    "from_confusion",
    "permute_blocks",
    "permute_units",
]
