"""What is trained as one: a network and its objective. Everything that learns is used inside `forward`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from synapse_diffusion.models.base import Decoder, Dropout
from synapse_diffusion.models.fusion import EarlyNetwork, Network
from synapse_diffusion.models.starts import FOLDS, Moments, Start, encoding_starts, principal_axes, ridge_start
from synapse_diffusion.parallel import Group, gather
from synapse_diffusion.training.examples import Batch
from synapse_diffusion.training.loop import Trainable
from synapse_diffusion.training.objectives import Images, Objective, Questions

STATISTICS_TRIALS: Final = 6000  # from which what a decoder estimates is fitted
LINEAR_TRIALS: Final = 20_000  # from which a baseline is fitted, held at once
START_TRIALS: Final = 200_000  # of a modality, from which a linear path's start is solved


class Learner(Trainable):
    """Network and objective; `forward` gives the loss of the whole batch, from this process's share of the signals.

    FSDP gathers weights around `forward` alone, hence nothing that learns is touched elsewhere.
    """

    network: Network | EarlyNetwork

    def __init__(
        self, network: Network | EarlyNetwork, objective: Objective, *, prior: float, group: Group, bfloat16: bool
    ) -> None:
        """`prior`: of the linear penalty, over the number of training trials."""
        super().__init__()
        self.network, self.objective = network, objective
        self._prior, self._group, self._bfloat16 = prior, group, bfloat16
        for module in self.modules():
            if isinstance(module, Dropout):
                module.share = (group.rank, group.size)

    def forward(self, batch: Batch, progress: float | None) -> Tensor:
        """The loss at this share of the steps; without one, all processes' main outputs (B, D)."""
        device = batch.target_B.device.type
        with torch.autocast(device, torch.bfloat16, enabled=self._bfloat16):
            fold_B = None if progress is None else self._folds(batch.target_B)
            out = self.network(batch.signals, batch.people, batch.present, fold_B)
        if progress is None:
            return gather(out[self.network.main].float(), self._group)
        losses = [self._loss(name, gather(o.float(), self._group), batch, progress) for name, o in out.items()]
        return torch.stack(losses).sum() + self._prior * self.network.linear_penalty()

    def _loss(self, name: str, out_BD: Tensor, batch: Batch, progress: float) -> Tensor:
        """Of one output: a modality's own over the trials of it that there are."""
        target_B = batch.target_B
        if name in batch.recorded_B:
            at = batch.recorded_B[name].to(target_B.device)
            out_BD, target_B = out_BD[at], target_B[at]
        return self.objective(out_BD, target_B, progress) if len(target_B) else 0 * out_BD.sum()

    def _folds(self, target_B: Tensor) -> Tensor | None:
        """The fold of each trial of this process's share."""
        fold_B = self.objective.folds(target_B)
        return None if fold_B is None else fold_B[self._group.share(len(target_B))]

    def optimizer(self, learning_rate: float, weight_decay: float) -> torch.optim.AdamW:
        """AdamW; no decay where a prior or a meaning holds the weights."""
        linear = {id(p) for p in [*self.network.linear_parameters(), *self._scales()]}
        free = [p for p in self.parameters() if id(p) in linear]
        decayed = [p for p in self.parameters() if id(p) not in linear]
        groups = [{"params": free, "weight_decay": 0.0}, {"params": decayed, "weight_decay": weight_decay}]
        return torch.optim.AdamW(groups, lr=learning_rate)

    def _scales(self) -> list[nn.Parameter]:
        """Temperature, bias, layer weights, the learned map of images."""
        return list(self.objective.parameters())


def estimates(network: Network | EarlyNetwork) -> bool:
    """Does any decoder estimate something from trials before it is trained?"""
    return any(
        isinstance(part, Decoder) and type(part).fit_statistics is not Decoder.fit_statistics
        for part in network.modules()
    )


@torch.no_grad()
def fit_statistics(network: Network | EarlyNetwork, batch: Batch, cell_N: NDArray[np.int64]) -> None:
    """Let each decoder estimate what it estimates; `cell_N`: trials of equal number have equal mean responses."""
    cells = torch.from_numpy(cell_N).to(batch.target_B.device)
    for decoder, x_NCT, person_N in network.views(batch.signals, batch.people, batch.present):
        decoder.fit_statistics(x_NCT, cells, person_N)


@torch.no_grad()
def begin(network: Network | EarlyNetwork, batches: Iterable[Batch], objective: Images | Questions) -> None:
    """Let linear paths, and the map of images where it is learned, begin at closed-form solutions (`models.starts`)."""
    shared = objective.space if isinstance(objective, Images) and objective.space.is_learned else None
    axes_DE = None if shared is None else principal_axes(shared.trained())[0]
    moments: dict[Decoder, Moments] = {}
    for batch in batches:
        fold_B = objective.folds(batch.target_B)
        assert fold_B is not None
        for decoder, x_BCT, person_B in network.views(batch.signals, batch.people, batch.present):
            feature_BF = decoder.linear_features(x_BCT, person_B).double()
            found = moments.setdefault(decoder, Moments())
            if axes_DE is not None and shared is not None:
                found.add(shared.joined(batch.target_B).double() @ axes_DE.to(feature_BF), feature_BF, person_B, fold_B)
            else:
                target_BD = objective.vectors(batch.target_B).double()
                found.add(feature_BF, target_BD, torch.zeros_like(person_B), fold_B)
    starts: dict[Decoder, Start]
    if axes_DE is not None and shared is not None and shared.project is not None:
        image_ER, starts = encoding_starts(moments, FOLDS, shared.n_outputs)
        shared.project.begin_at((axes_DE @ image_ER).T)
    else:
        starts = {decoder: ridge_start(found, FOLDS) for decoder, found in moments.items()}
    for decoder, start in starts.items():
        decoder.begin_at(start)
