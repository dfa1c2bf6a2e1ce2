"""Training losses."""

from __future__ import annotations

import torch
from torch.nn import functional


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
