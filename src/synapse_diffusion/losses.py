"""Training losses.

Those between embeddings are functions of whole batches: with several processes, gather predictions and targets (with
gradient) before the call, and every process has the loss of the global batch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import torch
from torch import nn
from torch.nn import functional

TEMPERATURE_RANGE: Final = (0.01, 1.0)
MMD_WIDTHS: Final = (0.25, 0.5, 1.0, 2.0, 4.0)
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


class Temperature(nn.Module):
    """A learned temperature, held in `TEMPERATURE_RANGE`; CLIP's start, 0.07 (Radford et al. 2021, section 2.5).

    The parameter is the logarithm, of shape (1,): FSDP shards no scalars. It is put back into its range before each
    use, not clamped in the result: beyond an end the gradient of that would be zero for good.
    """

    def __init__(self, start: float = 0.07) -> None:
        super().__init__()
        self.log_1 = nn.Parameter(torch.tensor([math.log(start)]))

    def forward(self) -> torch.Tensor:
        """The temperature (1,)."""
        with torch.no_grad():
            self.log_1.clamp_(*(math.log(end) for end in TEMPERATURE_RANGE))
        return self.log_1.exp()


def info_nce(
    prediction_BD: torch.Tensor, target_BD: torch.Tensor, temperature_1: torch.Tensor, *, symmetric: bool = True
) -> torch.Tensor:
    """Cross-entropy in nats of finding each trial's target among the batch's by cosine (Oord et al. 2018, eq. 4).

    `symmetric`: and each target's trial, in equal parts (CLIP, Radford et al. 2021, figure 3). Trials that share a
    target count as each other's negatives: deal batches without repeated images.
    """
    logit_BB = _cosines(prediction_BD, target_BD) / temperature_1
    truth_B = torch.arange(len(logit_BB), device=logit_BB.device)
    loss = functional.cross_entropy(logit_BB, truth_B)
    return (loss + functional.cross_entropy(logit_BB.T, truth_B)) / 2 if symmetric else loss


def siglip(
    prediction_BD: torch.Tensor, target_BD: torch.Tensor, temperature_1: torch.Tensor, bias_1: torch.Tensor
) -> torch.Tensor:
    """Each pair of the batch as a yes/no question, summed over targets, mean over trials (Zhai et al. 2023).

    Published start: temperature 0.1, bias -10, so that the many negatives do not weigh at first.
    """
    logit_BB = _cosines(prediction_BD, target_BD) / temperature_1 + bias_1
    sign_BB = 2 * torch.eye(len(logit_BB), dtype=logit_BB.dtype, device=logit_BB.device) - 1
    return -functional.logsigmoid(sign_BB * logit_BB).sum(1).mean()


def cosine_loss(prediction_BD: torch.Tensor, target_BD: torch.Tensor) -> torch.Tensor:
    """One minus the cosine, mean over trials."""
    return (1 - functional.cosine_similarity(prediction_BD, target_BD)).mean()


def squared_loss(prediction_BD: torch.Tensor, target_BD: torch.Tensor) -> torch.Tensor:
    """Mean squared difference."""
    return functional.mse_loss(prediction_BD, target_BD)


def mmd(a_BD: torch.Tensor, b_ND: torch.Tensor, widths: Sequence[float] = MMD_WIDTHS) -> torch.Tensor:
    """Squared maximum mean discrepancy of two samples, the biased estimate (Gretton et al. 2012, equation 5).

    The kernel is the mean of Gaussians exp(-d^2 / (w m)), m the mean squared distance in both samples together, w the
    `widths` (Long et al. 2015 take several).
    """
    both = torch.cat([a_BD, b_ND])
    distance = torch.cdist(both, both, compute_mode="donot_use_mm_for_euclid_dist").square()
    mean = distance.detach().sum() / (len(both) * (len(both) - 1))
    kernel = torch.stack([torch.exp(-distance / (width * mean)) for width in widths]).mean(0)
    n = len(a_BD)
    return kernel[:n, :n].mean() + kernel[n:, n:].mean() - 2 * kernel[:n, n:].mean()


def answer_weights(answer_NK: torch.Tensor) -> torch.Tensor:
    """Weights (2, K) of no and yes to each question: both sum to half of the trials."""
    yes_K = answer_NK.float().sum(0)
    return len(answer_NK) / (2 * torch.stack([len(answer_NK) - yes_K, yes_K]).clamp_min(1))


def balanced_yes_no(logit_BK: torch.Tensor, answer_BK: torch.Tensor, weight_2K: torch.Tensor) -> torch.Tensor:
    """Binary cross-entropy in nats of K questions, e.g. THINGS' 27 categories, yes and no of equal weight; mean."""
    answer_BK = answer_BK.to(logit_BK.dtype)
    loss_BK = functional.binary_cross_entropy_with_logits(logit_BK, answer_BK, reduction="none")
    return (loss_BK * (weight_2K[1] * answer_BK + weight_2K[0] * (1 - answer_BK))).mean()


def _cosines(a_BD: torch.Tensor, b_BD: torch.Tensor) -> torch.Tensor:
    return functional.normalize(a_BD, dim=1) @ functional.normalize(b_BD, dim=1).T
