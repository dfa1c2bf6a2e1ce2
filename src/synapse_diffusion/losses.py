"""Training losses."""

from __future__ import annotations

from typing import Final

import torch
from torch.nn import functional

TEMPERATURES: Final = tuple(2.0 ** (k / 2) for k in range(-4, 9))


def class_weights(label_N: torch.Tensor, n_classes: int) -> torch.Tensor:
    """Weights (K,) inversely proportional to the class counts, mean 1 over trials."""
    counts = torch.bincount(label_N, minlength=n_classes).clamp_min(1).float()
    return len(label_N) / (n_classes * counts)


def balanced_cross_entropy(
    logit_BK: torch.Tensor, label_B: torch.Tensor, weight_K: torch.Tensor, smoothing: float
) -> torch.Tensor:
    """Cross-entropy in nats, each trial weighted by its class, mean over the batch (not over the weights).

    A mean over the batch keeps the loss of two half batches equal to that of the whole one.
    """
    loss_B = functional.cross_entropy(logit_BK, label_B, label_smoothing=smoothing, reduction="none")
    return (loss_B * weight_K[label_B]).mean()


def calibrated_loss(logit_NK: torch.Tensor, label_N: torch.Tensor, weight_K: torch.Tensor) -> float:
    """Balanced cross-entropy in nats at the best of a few temperatures (Guo et al. 2017), for choosing on validation.

    With few concepts the plain loss rises as soon as a decoder grows sure of itself, long before it stops getting
    better.
    """
    return min(float(balanced_cross_entropy(logit_NK / t, label_N, weight_K, 0.0)) for t in TEMPERATURES)
