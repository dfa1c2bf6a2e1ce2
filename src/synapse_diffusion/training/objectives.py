"""What outputs mean: class logits, answers to yes/no questions, or vectors of images; their losses and scores."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from synapse_diffusion.config import LossSettings, TargetSettings
from synapse_diffusion.losses import (
    TEMPERATURES,
    Temperature,
    answer_weights,
    balanced_cross_entropy,
    balanced_yes_no,
    calibrated_loss,
    class_weights,
    cosine_loss,
    info_nce,
    mmd,
    siglip,
    squared_loss,
)
from synapse_diffusion.models.starts import principal_axes

Scaling = tuple[Tensor, Tensor]
"""Mean (D,), and factors (D,) or principal axes (D, E)."""
CONTRASTIVE: Final = ("info_nce", "siglip")
SIGLIP_BIAS: Final = -10.0
COSINE_TEMPERATURES: Final = tuple(2.0 ** (-k / 2) for k in range(4, 15))  # 0.25 .. 0.008


@dataclass(frozen=True)
class Judged:
    """Validation: the loss that choices are made by (nats, lower is better), and a score that people read."""

    loss: float
    score: float


class Objective(nn.Module, ABC):
    """`forward(out_BD, target_B)`: the loss of a whole batch. `n_outputs` is D."""

    n_outputs: int
    unit = False
    """Are outputs directions?"""
    starts = 0
    """Closed-form solutions that linear paths begin at: none, one for all people, or (2) one of each."""
    fold_U: Tensor | None

    def __init__(self, fold_U: Tensor | None = None) -> None:
        """`fold_U`: of each target's concept."""
        super().__init__()
        self.register_buffer("fold_U", fold_U, persistent=False)

    def folds(self, target_B: Tensor) -> Tensor | None:
        """The folds (B,) of targets' concepts, where there are linear solutions to begin at."""
        return None if self.fold_U is None else self.fold_U[target_B]

    @abstractmethod
    def forward(self, out_BD: Tensor, target_B: Tensor, progress: float) -> Tensor:
        """Mean loss in nats; `progress` is the share of the steps that are done."""

    @abstractmethod
    def judge(self, out_ND: Tensor, target_N: Tensor) -> Judged:
        """How good outputs (N, D) of validation trials are."""

    @abstractmethod
    def likelihood_loss(self, out_ND: Tensor, target_N: Tensor) -> Tensor:
        """Cross-entropy in nats of outputs (N, D) whose size says how sure they are: what fusion weights minimise."""

    @abstractmethod
    def scores(self, out_ND: Tensor, gallery_K: Tensor | None = None) -> Tensor:
        """What is decided by (N, K): larger is more likely; logarithms of probabilities up to scale."""


class Classes(Objective):
    """Exclusive classes: cross-entropy, classes of equal weight."""

    weight_K: Tensor

    def __init__(self, label_N: Tensor, n_classes: int, smoothing: float) -> None:
        super().__init__()
        self.n_outputs, self._smoothing = n_classes, smoothing
        self.register_buffer("weight_K", class_weights(label_N, n_classes))

    def forward(self, out_BD: Tensor, target_B: Tensor, progress: float) -> Tensor:
        """Balanced cross-entropy."""
        return balanced_cross_entropy(out_BD, target_B, self.weight_K, self._smoothing)

    def judge(self, out_ND: Tensor, target_N: Tensor) -> Judged:
        """Calibrated loss and balanced accuracy."""
        loss = calibrated_loss(out_ND, target_N, class_weights(target_N, self.n_outputs).to(out_ND.device))
        hit = (out_ND.argmax(1) == target_N).float()
        recalls = [float(hit[target_N == k].mean()) for k in torch.unique(target_N)]
        return Judged(loss, float(np.mean(recalls)))

    def likelihood_loss(self, out_ND: Tensor, target_N: Tensor) -> Tensor:
        """Balanced cross-entropy."""
        return balanced_cross_entropy(out_ND, target_N, self.weight_K, 0.0)

    def scores(self, out_ND: Tensor, gallery_K: Tensor | None = None) -> Tensor:
        """Log probabilities."""
        return torch.log_softmax(out_ND.double(), 1)


class Questions(Objective):
    """Yes or no to each of Q categories; a target is a row of the table of answers (U, Q)."""

    answer_UQ: Tensor
    weight_2Q: Tensor
    starts = 1

    def __init__(self, answer_UQ: Tensor, target_N: Tensor, fold_U: Tensor) -> None:
        super().__init__(fold_U)
        self.n_outputs = answer_UQ.shape[1]
        self.register_buffer("answer_UQ", answer_UQ.float(), persistent=False)
        self.register_buffer("weight_2Q", answer_weights(answer_UQ[target_N]))

    def forward(self, out_BD: Tensor, target_B: Tensor, progress: float) -> Tensor:
        """Balanced binary cross-entropy."""
        return balanced_yes_no(out_BD, self.answer_UQ[target_B], self.weight_2Q)

    def judge(self, out_ND: Tensor, target_N: Tensor) -> Judged:
        """Loss at the best of a few temperatures, and mean AUC."""
        answer_NQ = self.answer_UQ[target_N]
        loss = min(float(balanced_yes_no(out_ND / t, answer_NQ, self.weight_2Q)) for t in TEMPERATURES)
        return Judged(loss, _mean_auc(out_ND, answer_NQ > 0))

    def likelihood_loss(self, out_ND: Tensor, target_N: Tensor) -> Tensor:
        """Balanced binary cross-entropy."""
        return balanced_yes_no(out_ND, self.answer_UQ[target_N], self.weight_2Q)

    def scores(self, out_ND: Tensor, gallery_K: Tensor | None = None) -> Tensor:
        """Log odds."""
        return out_ND.double()

    def vectors(self, target_N: Tensor) -> Tensor:
        """Yes as 1, no as -1."""
        return 2 * self.answer_UQ[target_N] - 1


class Images(Objective):
    """Vectors of images; a target is a row of the space's table."""

    unit = True

    def __init__(self, space: TargetSpace, settings: LossSettings, fold_U: Tensor) -> None:
        super().__init__(fold_U)
        self.starts = 1 if space.project is None else 2
        self.space, self._settings = space, settings
        self.n_outputs = space.n_outputs
        contrastive = settings.name in CONTRASTIVE
        self.temperature = Temperature(settings.temperature) if contrastive else None
        self.bias_1 = nn.Parameter(torch.tensor([SIGLIP_BIAS])) if settings.name == "siglip" else None

    def forward(self, out_BD: Tensor, target_B: Tensor, progress: float) -> Tensor:
        """The chosen loss; at first only the distance of distributions, where asked for."""
        target_BD = self.space(target_B)
        if progress < self._settings.mmd_share:
            unit = functional.normalize
            idle = sum((p.sum() * 0 for p in self.parameters()), torch.zeros((), device=out_BD.device))
            # a learned map of images that followed as well would bring both to one place
            return mmd(unit(out_BD, dim=1), unit(target_BD.detach(), dim=1)) + idle
        if self.temperature is None:
            distance = cosine_loss if self._settings.name == "cosine" else squared_loss
            return distance(out_BD, target_BD)
        if self.bias_1 is None:
            return info_nce(out_BD, target_BD, self.temperature())
        return siglip(out_BD, target_BD, self.temperature(), self.bias_1)

    def judge(self, out_ND: Tensor, target_N: Tensor) -> Judged:
        """Cross-entropy of finding the image among validation's, at the best temperature; share that are found."""
        gallery, truth_N = torch.unique(target_N, return_inverse=True)
        cosine_NK = self.scores(out_ND, gallery)
        losses = [float(functional.cross_entropy(cosine_NK / t, truth_N)) for t in COSINE_TEMPERATURES]
        return Judged(min(losses), float((cosine_NK.argmax(1) == truth_N).double().mean()))

    def likelihood_loss(self, out_ND: Tensor, target_N: Tensor) -> Tensor:
        """Of finding the image among these by the inner product with its direction."""
        gallery, truth_N = torch.unique(target_N, return_inverse=True)
        unit_KD = functional.normalize(self.space(gallery), dim=1)
        return functional.cross_entropy(out_ND @ unit_KD.T, truth_N)

    def scores(self, out_ND: Tensor, gallery_K: Tensor | None = None) -> Tensor:
        """Cosines with the images of the gallery (rows of the table)."""
        assert gallery_K is not None, "retrieval needs a gallery"
        vector_KD = functional.normalize(self.space(gallery_K).double(), dim=1)
        return functional.normalize(out_ND.double(), dim=1) @ vector_KD.T

    def vectors(self, target_N: Tensor) -> Tensor:
        """The targets' vectors."""
        found: Tensor = self.space(target_N)
        return found


class TargetSpace(nn.Module):
    """Images' vectors as decoders are to predict them: layers scaled, weighted, side by side, and mapped if asked.

    Scaling is fitted on training images alone. Each layer has a mean squared length of one over them, times its weight;
    a cosine is then the weighted mean of the layers' cosines.
    """

    def __init__(
        self, vectors: Sequence[Tensor], trained_U: Tensor, settings: TargetSettings, scalings: Sequence[Scaling]
    ) -> None:
        """`vectors`: (U, D) of each layer; `trained_U`: rows of training images; `scalings`: fitted on these."""
        super().__init__()
        self._trained_U = trained_U
        widths = []
        for k, (table_UD, (mean_D, scale)) in enumerate(zip(vectors, scalings, strict=True)):
            trained_ND = table_UD[trained_U].double()
            length = _scaled(trained_ND - mean_D, scale).square().sum(1).mean().sqrt().clamp_min(1e-12)
            self.register_buffer(f"mean{k}", mean_D.float())
            self.register_buffer(f"scale{k}", (scale / length).float())
            self.register_buffer(f"vectors{k}", table_UD.float(), persistent=False)
            widths.append(scale.shape[-1])
        learned = settings.weights == "learned" and len(vectors) > 1
        self.log_weight_L = nn.Parameter(torch.zeros(len(vectors))) if learned else None
        projection = min(settings.projection, sum(widths))
        self.project = Projection(sum(widths), projection) if projection else None
        self.n_layers, self.n_outputs = len(vectors), projection or sum(widths)

    @property
    def is_learned(self) -> bool:
        """Is there a linear map that learns?"""
        return self.project is not None and self.project.departure_DE.requires_grad

    def forward(self, target_B: Tensor) -> Tensor:
        """Vectors (B, D) of rows of the table."""
        joined_BE = self.joined(target_B)
        mapped: Tensor = joined_BE if self.project is None else self.project(joined_BE)
        return mapped

    def trained(self) -> Tensor:
        """All training images' vectors (N, E), before the learned map."""
        return self.joined(self._trained_U.to(self.get_buffer("mean0").device))

    def joined(self, target_B: Tensor) -> Tensor:
        """Layers side by side (B, E), before the learned map."""
        share_L = torch.full((self.n_layers,), 1.0 / self.n_layers, device=target_B.device)
        if self.log_weight_L is not None:
            share_L = torch.softmax(self.log_weight_L, 0)
        layers = []
        for k, share in enumerate(share_L):
            centred_BD = self.get_buffer(f"vectors{k}")[target_B] - self.get_buffer(f"mean{k}")
            layers.append(_scaled(centred_BD, self.get_buffer(f"scale{k}")) * share.sqrt())
        return torch.cat(layers, 1)


class Projection(nn.Module):
    """A learned linear map of image vectors (B, E) to (B, D): where it begins, plus a departure in units of that."""

    begin_DE: Tensor
    unit_1: Tensor

    def __init__(self, n_inputs: int, n_outputs: int) -> None:
        super().__init__()
        self.register_buffer("begin_DE", torch.randn(n_outputs, n_inputs) / n_inputs**0.5)
        self.register_buffer("unit_1", torch.full((1,), n_inputs**-0.5))
        self.departure_DE = nn.Parameter(torch.zeros(n_outputs, n_inputs))

    def begin_at(self, weight_DE: Tensor) -> None:
        """Begin elsewhere than at random."""
        self.begin_DE.copy_(weight_DE)
        self.unit_1.copy_(weight_DE.square().mean().sqrt().clamp_min(1e-12))

    def forward(self, vector_BE: Tensor) -> Tensor:
        """Mapped vectors (B, D)."""
        return functional.linear(vector_BE, self.begin_DE + self.unit_1 * self.departure_DE)


def _scaled(centred_BD: Tensor, scale: Tensor) -> Tensor:
    return centred_BD * scale if scale.ndim == 1 else centred_BD @ scale


def scaling(trained_ND: Tensor, settings: TargetSettings) -> Scaling:
    """Mean (D,), and factors (D,) or principal axes (D, E)."""
    trained_ND = trained_ND.double()
    mean_D = trained_ND.mean(0)
    centred = trained_ND - mean_D
    sd_D = centred.square().mean(0).sqrt()
    scale_D = torch.where(sd_D > 1e-6 * sd_D.max().clamp_min(1e-30), 1 / sd_D.clamp_min(1e-30), 0.0)
    factor_D = scale_D if settings.scaling == "standardise" else torch.ones_like(sd_D)
    if not settings.components:
        return mean_D, factor_D
    axes_DE, singular = principal_axes(centred * factor_D, settings.components)
    axes_DE = axes_DE * torch.where(axes_DE.sum(0) < 0, -1.0, 1.0)  # of two equal solutions always the same
    if settings.scaling == "whiten":
        axes_DE = axes_DE / (singular / len(centred) ** 0.5)
    return mean_D, factor_D[:, None] * axes_DE


def _mean_auc(score_NQ: Tensor, answer_NQ: Tensor) -> float:
    """Mean area under the ROC curve over questions with both answers (ties ignored)."""
    rank_NQ = score_NQ.argsort(0).argsort(0).double() + 1
    yes_Q = answer_NQ.sum(0).double()
    no_Q = len(answer_NQ) - yes_Q
    area_Q = ((rank_NQ * answer_NQ).sum(0) - yes_Q * (yes_Q + 1) / 2) / (yes_Q * no_Q).clamp_min(1)
    both = (yes_Q > 0) & (no_Q > 0)
    return float(area_Q[both].mean()) if bool(both.any()) else float("nan")
