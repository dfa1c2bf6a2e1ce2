"""Which sensors and latencies a decoder lives on."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Final

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from synapse_diffusion.evaluate.asking import questions
from synapse_diffusion.figures.sensors import draw_contributions
from synapse_diffusion.models.fusion import FUSED
from synapse_diffusion.splits import VALIDATION
from synapse_diffusion.store.files import write_table
from synapse_diffusion.training.decoding import batch_of
from synapse_diffusion.training.examples import Batch, chunks, read
from synapse_diffusion.training.learner import Learner
from synapse_diffusion.training.trained import Trained
from synapse_diffusion.types import Progress

STEPS: Final = 8  # of the path: what contributions leave over of the fall of the loss is then some percent
WINDOW_S: Final = 0.1  # of a map
MOST_TRIALS: Final = 1024


def map_contributions(trained: Trained, progress: Progress) -> None:
    """What each sensor and latency contributes to the fall of the loss, into maps.tsv and figures/maps_MODALITY.png.

    Integrated gradients (Sundararajan et al. 2017) from no signal (zeros after scaling) to the signal: contributions
    add up to the loss without it less the loss with it. Of the first fold's first network (of a fusion the fused one,
    which keeps the other modality), on validation trials: no test trial is read.
    """
    setting, tables = trained.setting, []
    rows = trained.rows(0, VALIDATION)
    targets = {name: setting.task.of[name].target_N[r] for name, r in rows.items()}
    asked = next(questions(setting, rows, targets)).asked
    rng = np.random.default_rng(setting.recipe.evaluate.seed)
    asked = asked.only(rng.permutation(len(asked)) < MOST_TRIALS)
    models = trained.models(0, final=False)
    model = FUSED if setting.sources.is_fusion else setting.recipe.model.name
    learner = models.networks[model][0].requires_grad_(False)
    first = f" (first of {len(trained.folds)} folds)" if len(trained.folds) > 1 else ""
    for modality in learner.network.modalities:
        epochs = setting.sources.of[modality].epochs
        total_CT = np.zeros((len(epochs.channels), epochs.n_times))
        for at in chunks(len(asked)):
            progress(f"{modality}: sensors and latencies", at.start, len(asked))
            batch = batch_of(read(asked.part(at), models.data), learner.network.modalities)
            total_CT += integrated_gradients(learner, batch, modality) * len(batch.target_B) / len(asked)
        windows = _windows(epochs.n_times, epochs.sfreq)
        times_s = [(float(epochs.times[w.start]), float(epochs.times[w.stop - 1] + 1 / epochs.sfreq)) for w in windows]
        share_CW = np.stack([total_CT[:, window].sum(1) for window in windows], 1)
        draw_contributions(
            epochs.times, total_CT, times_s, share_CW, setting.shapes[modality].position_tensor().double().numpy(),
            f"{setting.recipe.data.name}, {modality}: {model}, {len(asked)} validation trials" + first,
            trained.run.folder / f"figures/maps_{modality}.png",
        )  # fmt: skip
        for name, value_W in zip(epochs.channels, share_CW, strict=True):
            tables.append(pd.DataFrame({
                "modality": modality, "sensor": name, "start_s": [t for t, _ in times_s],
                "stop_s": [t for _, t in times_s], "contribution": value_W,
            }))  # fmt: skip
    write_table(pd.concat(tables, ignore_index=True).round(8), trained.run.folder / "maps.tsv")


def integrated_gradients(learner: Learner, batch: Batch, modality: str) -> NDArray[np.float64]:
    """Contributions (C, T) in nats of one modality's scaled signals, mean over the batch's trials."""
    signal_BCT = batch.signals[modality]
    total_CT = torch.zeros(signal_BCT.shape[1:], dtype=torch.float64, device=signal_BCT.device)
    for k in range(STEPS):
        part_BCT = (signal_BCT * ((k + 0.5) / STEPS)).requires_grad_()
        loss = loss_of(learner, batch, modality, part_BCT)
        (slope_BCT,) = torch.autograd.grad(loss, part_BCT)
        total_CT -= (slope_BCT * signal_BCT).sum(0).double() / STEPS
    return np.asarray(total_CT.cpu().numpy())


def loss_of(learner: Learner, batch: Batch, modality: str, signal_BCT: Tensor) -> Tensor:
    """The loss of a batch with another signal of one modality."""
    signals = {**batch.signals, modality: signal_BCT}
    out_BD = learner(Batch(signals, batch.people, batch.present, batch.target_B), None)
    loss: Tensor = learner.objective(out_BD, batch.target_B, 1.0)
    return loss


def _windows(n_times: int, sfreq: float) -> Sequence[slice]:
    """Stretches of 0.1 s, the last one up to twice as long."""
    n = max(1, int(n_times / (WINDOW_S * sfreq)))
    return [slice(a, b) for a, b in pairwise([*(round(k * WINDOW_S * sfreq) for k in range(n)), n_times])]
